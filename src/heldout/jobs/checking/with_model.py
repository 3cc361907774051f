"""What only a model can tell of data: tokens, information, odd rows, how far its domain is."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.progress import Progress, advance_to
from heldout.core.recipe import Recipe
from heldout.core.results.check import Problem
from heldout.core.row import Row
from heldout.core.stats import difference_of_ratios, ratio_estimate
from heldout.data.stream import RowStream
from heldout.data.surprise import robust_z
from heldout.jobs.checking.options import BY_A_MODEL
from heldout.lm.accelerator import training_device
from heldout.lm.characters import token_size
from heldout.lm.chat_template import with_template_arguments
from heldout.lm.load import load_model
from heldout.lm.nll import context_length, document_losses
from heldout.lm.quiet import quiet_libraries
from heldout.lm.special_tokens import content_ids, end_of_turn_ids
from heldout.lm.tokenize import tokenize_row

FAR_OFF = 4.0  # robust standard deviations of bits per byte
_WHOLE = 1 << 30  # tokens: a row is not cut


@dataclass
class SeenByModel:
    """Measured on a sample of the rows; the keys of ``far_off`` are positions."""

    measurements: list[Measurement | NotMeasured] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    far_off: dict[int, str] = field(default_factory=dict)
    tokens: np.ndarray | None = None
    rows: list[Row] = field(default_factory=list)  # of the sample, those that can be trained on
    max_length: int = 0  # tokens of a window
    num_parameters: int = 0  # of the model


@dataclass(frozen=True)
class RowSample:
    """Rows of a source that a model reads, by their number in it."""

    stream: RowStream
    position_of: dict[int, int]  # number in the source -> position in the index
    num_distinct: int  # rows of the source without duplicates, which the information is told for


def measure_with_model(
    model: str,
    sample: RowSample,
    reference: RowStream | None,
    most_rows: int,
    recipe: Recipe,
    progress: Progress,
) -> SeenByModel:
    """Losses of the sample, and of ``reference`` if given, under the model as it is."""
    seen = SeenByModel()
    with quiet_libraries(), progress.stage("the model's view", total=len(sample.position_of)):
        loaded = load_model(
            model,
            device=training_device(),
            trust_remote_code=recipe.model.trust_remote_code,
        )
        with_template_arguments(loaded.tokenizer, recipe.data.template_arguments)
        limit = context_length(loaded.model)
        rows = _read_tokens(sample, loaded.tokenizer, limit, seen)
        if len(rows) < 2:
            reason = "fewer than two rows could be tokenized"
            seen.measurements += [NotMeasured(name, reason) for name in BY_A_MODEL]
            return seen
        seen.rows, seen.num_parameters = rows, loaded.parameters
        seen.max_length = min(recipe.data.max_length, limit or recipe.data.max_length)
        options: dict[str, Any] = {
            "max_length": seen.max_length,
            "batch_size": recipe.eval.batch_size,
        }
        losses = document_losses(
            loaded.model, rows, loaded.tokenizer, progress=advance_to(progress), **options
        )
        _tell_information(losses, sample.num_distinct, seen)
        _tell_far_off(losses, rows, sample.position_of, seen)
        if reference is None:
            seen.measurements.append(
                NotMeasured("domain_distance", "no reference text was given: --reference")
            )
        else:
            known = list(islice(reference.rows(), min(most_rows, 200)))
            other = document_losses(loaded.model, known, loaded.tokenizer, **options)
            _tell_distance(losses, other, seen)
    return seen


def _read_tokens(
    sample: RowSample, tokenizer: Any, limit: int | None, seen: SeenByModel
) -> list[Row]:
    """The sampled rows, with what is wrong with their tokens."""
    rows: list[Row] = []
    lengths: list[int] = []
    ends = end_of_turn_ids(tokenizer) if tokenizer.all_special_ids else set()
    num_without_end = num_too_long = num_unknown = num_content = 0
    start_text = tokenizer.bos_token or ""
    for item in sample.stream:
        if item.index not in sample.position_of or item.row is None:
            continue
        try:
            tokenized = tokenize_row(item.row, tokenizer, _WHOLE)
        except UserError as error:
            if not rows and "no chat template" in str(error):
                seen.warnings.append(str(error))
                return []
            seen.problems.append(
                Problem("train", item.index, item.where, "template", str(error), blocks=True)
            )
            continue
        if not tokenized.windows:
            seen.problems.append(
                Problem("train", item.index, item.where, "empty", "no token is scored", blocks=True)
            )
            continue
        longest = max(len(window.input_ids) for window in tokenized.windows)
        last = next(token for token in reversed(tokenized.windows[-1].labels) if token != -100)
        num_without_end += last not in ends
        num_too_long += limit is not None and longest > limit
        content = content_ids(tokenizer, item.row.text)
        num_content += len(content)
        num_unknown += content.count(tokenizer.unk_token_id) if tokenizer.unk_token else 0
        if start_text and item.row.text.lstrip().startswith(start_text):
            words = f"the text begins with the start token {start_text} itself"
            seen.problems.append(Problem("train", item.index, item.where, "template", words))
        rows.append(item.row)
        lengths.append(longest)
    if tokenizer.eos_token_id is None:
        seen.warnings.append(
            "The tokenizer has no end-of-text token: a model trained on these rows never stops."
        )
    elif num_without_end:
        seen.warnings.append(
            f"{num_without_end:,} of {len(rows):,} sampled rows do not end with an end token."
        )
    if num_too_long:
        seen.warnings.append(
            f"{num_too_long:,} of {len(rows):,} sampled rows are longer than the {limit:,} tokens "
            "that the model can read at once; they are cut into windows, never off."
        )
    if num_unknown > 0.001 * num_content:
        seen.warnings.append(
            f"{num_unknown / num_content:.1%} of the tokens are unknown to the tokenizer."
        )
    if rows and (warning := token_size(tokenizer, rows).warning):
        seen.warnings.append(warning)
    seen.tokens = np.array(lengths, dtype=np.int64) if lengths else None
    return rows


def _tell_information(losses: DocumentLosses, num_distinct: int, seen: SeenByModel) -> None:
    bits_D = losses.nll_nats_D / np.log(2)
    per_byte = ratio_estimate(bits_D, losses.num_bytes_D, losses.groups_D)
    per_row = ratio_estimate(bits_D, np.ones(len(losses)), losses.groups_D)
    note = f"estimated from {len(losses):,} rows, for {num_distinct:,} rows without duplicates"
    seen.measurements += [
        Measurement(
            "bits_per_byte",
            per_byte.value,
            "bits per byte",
            per_byte.num_groups,
            "group",
            per_byte.interval,
            note="of the scored text under the base model",
        ),
        Measurement(
            "information_bits",
            per_row.value * num_distinct,
            "bits",
            per_row.num_groups,
            "group",
            per_row.interval.moved(times=num_distinct),
            note=note,
        ),
    ]


def _tell_far_off(
    losses: DocumentLosses, rows: list[Row], positions: dict[int, int], seen: SeenByModel
) -> None:
    if len(rows) < 30:
        return
    per_byte = losses.nll_nats_D / np.log(2) / np.maximum(losses.num_bytes_D, 1)
    z = robust_z(np.log(np.maximum(per_byte, 1e-6)))
    for place in np.flatnonzero(np.abs(z) > FAR_OFF).tolist():
        words = "more" if z[place] > 0 else "less"
        seen.far_off[positions[rows[place].index]] = (
            f"{per_byte[place]:.2f} bits per byte under the base model, far {words} than the "
            f"middle row ({np.median(per_byte):.2f})"
        )


def _tell_distance(losses: DocumentLosses, known: DocumentLosses, seen: SeenByModel) -> None:
    def bits(each: DocumentLosses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return each.nll_nats_D / np.log(2), each.num_bytes_D, each.groups_D

    if min(losses.num_groups, known.num_groups) < 2:
        reason = "the data or the reference has a single group"
        seen.measurements.append(NotMeasured("domain_distance", reason))
        return
    value, interval = difference_of_ratios(bits(losses), bits(known))
    seen.measurements.append(
        Measurement(
            "domain_distance",
            value,
            "bits per byte",
            losses.num_groups,
            "group",
            interval,
            {"reference": Contrast(value, interval)},
            "bits per byte of the data minus those of the reference text, under the base model",
        )
    )
