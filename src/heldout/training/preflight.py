"""What is checked before the first step, so that a run does not fail or lie hours later."""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.core.row import Row
from heldout.core.run_files import PreflightCheck
from heldout.lm.accelerator import free_bytes, training_device
from heldout.lm.dropout_places import unread_settings, unread_words
from heldout.lm.flat_trial import padding, padding_words
from heldout.lm.head import unwrapped
from heldout.lm.logit_path import LogitPath, held_logits, logit_path
from heldout.lm.row_tokens import with_tokens
from heldout.lm.special_tokens import end_of_turn_ids
from heldout.training.cost import added_bytes
from heldout.training.loop import Schedule, goes_by_length
from heldout.training.windows import WindowDataset

GB = 1e9


def check_windows(
    windows: WindowDataset, tokenizer: Any, limit: int | None
) -> list[PreflightCheck]:
    """Loss mask, length, end-of-text and beginning-of-text tokens, over all training windows."""
    if len(windows) == 0 or windows.num_tokens == 0:
        raise UserError(
            "The loss mask is empty: no token of the training rows would be scored. Check "
            "data.columns, and that completions are not empty."
        )
    if limit is not None and windows.longest > limit:
        raise UserError(
            f"data.max_length must be at most {limit}, what this model can read, got rows of "
            f"{windows.longest} tokens: set data.max_length={limit}."
        )
    checks = [
        PreflightCheck(
            "loss mask",
            "ok",
            f"{windows.num_tokens:,} of {len(windows.ids):,} tokens are scored, in "
            f"{len(windows):,} windows",
        )
    ]
    if windows.num_examples > windows.num_conversations:
        words = (
            f"{windows.num_conversations:,} conversations are {windows.num_examples:,} examples: "
            "the template renders earlier answers otherwise once later messages follow; "
            f"{windows.num_repeated:,} tokens are repeated"
        )
        checks.append(PreflightCheck("chat template", "ok", words))
    # White space that a template puts behind the end is not learned.
    last_of_row = np.flatnonzero(windows.row_index != _shifted(windows.row_index))
    end_ids = {tokenizer.eos_token_id, *end_of_turn_ids(tokenizer)}
    ended = sum(windows.last_scored(int(place)) in end_ids for place in last_of_row)
    num_rows = len(last_of_row)
    if ended < num_rows:
        checks.append(
            PreflightCheck(
                "end of text",
                "warning",
                f"{num_rows - ended} of {num_rows} rows do not end in an end-of-text token: the "
                "model will not learn to stop",
            )
        )
    else:
        checks.append(PreflightCheck("end of text", "ok", f"all {num_rows} rows end in one"))
    bos = tokenizer.bos_token_id
    if bos is not None and bos != tokenizer.eos_token_id:
        long_enough = windows.offsets[:-1][(windows.offsets[1:] - windows.offsets[:-1]) >= 2]
        doubled = int(
            ((windows.ids[long_enough] == bos) & (windows.ids[long_enough + 1] == bos)).sum()
        )
        if doubled:
            raise UserError(
                f"{doubled} training windows begin with two beginning-of-text tokens: remove the "
                "token from the data or from the chat template."
            )
        checks.append(
            PreflightCheck("beginning of text", "ok", "no row begins with a doubled token")
        )
    return checks


def check_renderings(rows: Iterable[Row], tokenizer: Any) -> None:
    """Raise UserError, which names the row, where the chat template refuses or loses some of it."""
    for _ in with_tokens([row for row in rows if row.kind == "conversation"], tokenizer):
        pass


def check_evaluation(schedule: Schedule, num_validation_groups: int) -> list[PreflightCheck]:
    """An evaluation that will really happen, on something."""
    if num_validation_groups < 2:
        raise UserError(
            f"The validation part has {num_validation_groups} groups; at least 2 are needed to "
            "keep the best checkpoint."
        )
    count = schedule.num_evaluations
    return [
        PreflightCheck(
            "evaluation",
            "ok",
            f"{schedule.evaluations_per_epoch:g} times an epoch, {count} times at most, on "
            f"{num_validation_groups} held-out groups",
        )
    ]


def check_base_loss(base: DocumentLosses, vocabulary_size: int) -> list[PreflightCheck]:
    """The base model's own loss: worse than a uniform guess means a wrong tokenizer."""
    level, uniform = base.nats_per_token, math.log(vocabulary_size)
    if level > uniform:
        return [
            PreflightCheck(
                "base model",
                "warning",
                f"{level:.2f} nats/token is worse than a uniform guess ({uniform:.2f}): an "
                "untrained model, or a tokenizer that does not belong to it",
            )
        ]
    return [PreflightCheck("base model", "ok", f"{level:.3f} nats/token on the validation part")]


def check_resources(
    model: Any,
    windows: WindowDataset,
    recipe: Recipe,
    regularizers: Sequence[Regularizer],
    folder: Path,
    vocabulary_size: int,
) -> list[PreflightCheck]:
    """Memory and disk for the run as planned; raises UserError with the amounts."""
    needed = memory_needed(model, windows, recipe, regularizers, vocabulary_size)
    available = memory_available()
    if needed > available:
        raise UserError(
            f"Too little memory: about {needed / GB:.1f} GB are needed beside the loaded model, "
            f"{available / GB:.1f} GB are free. Lower train.micro_batch_size (now "
            f"{recipe.train.micro_batch_size}) or data.max_length (now {recipe.data.max_length}), "
            "or use model.method = lora."
        )
    disk = disk_needed(model)
    free = shutil.disk_usage(folder).free
    if disk > free:
        raise UserError(
            f"Too little disk: about {disk / GB:.1f} GB are needed in {folder}, "
            f"{free / GB:.1f} GB are free. Give another --out."
        )
    checks = [
        PreflightCheck("memory", "ok", f"about {needed / GB:.1f} of {available / GB:.1f} GB"),
        PreflightCheck("disk", "ok", f"about {disk / GB:.1f} of {free / GB:.1f} GB"),
    ]
    if unread := unread_settings(unwrapped(model)):
        checks.append(PreflightCheck("dropout", "warning", unread_words(unread)))
    if words := held_logits(model):
        checks.append(PreflightCheck("loss", "ok", words))
    return [*checks, _check_padding(model, windows, recipe)]


def _check_padding(model: Any, windows: WindowDataset, recipe: Recipe) -> PreflightCheck:
    """Whether padded tokens are computed, and why; UserError under train.padding=off if so."""
    with padding(recipe.train.padding):
        words = padding_words(model)
        if goes_by_length(model, windows, recipe):
            words = f"{words}; rows of like length are trained together"
    return PreflightCheck("padding", "ok", words)


def memory_needed(
    model: Any,
    windows: WindowDataset,
    recipe: Recipe,
    regularizers: Sequence[Regularizer],
    vocabulary_size: int,
) -> float:
    """Bytes beyond the loaded weights: gradients, Adam's moments, activations, one logit chunk,
    and the copies that regularizers keep."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    is_fused = logit_path(model) is LogitPath.FUSED
    counted = memory_counted(
        model.config, trained, windows.longest, recipe, vocabulary_size, is_fused=is_fused
    )
    return counted + added_bytes(regularizers, model)


def memory_counted(
    config: Any,
    trained: int,
    longest: int,
    recipe: Recipe,
    vocabulary_size: int,
    *,
    is_fused: bool = True,
) -> float:
    """The same, without regularizers, of a model with ``trained`` weights that are trained.

    ``longest`` is that of the rows, in tokens; ``is_fused``: no logits are held. Activations of one
    layer are counted as 18 widths and 5 feed-forward widths a token, float32; the count is meant to
    be right within a factor of 2.
    """
    width = getattr(config, "hidden_size", 512)
    feed_forward = getattr(config, "intermediate_size", None) or 4 * width
    layers = getattr(config, "num_hidden_layers", 12)
    tokens = recipe.train.micro_batch_size * min(longest, recipe.data.max_length)
    per_layer = 4 * tokens * (18 * width + 5 * feed_forward)
    kept = 1 if recipe.model.gradient_checkpointing else layers
    boundary = 4 * tokens * width * layers if recipe.model.gradient_checkpointing else 0
    # Where they are held, with their gradient and their log-probabilities.
    logits = 3 * (64e6 if is_fused else 4.0 * tokens * vocabulary_size)
    # A quantized layer is made whole for its product, and its gradient's.
    whole = 4.0 * width * feed_forward if recipe.model.load_in else 0.0
    head = 4.0 * vocabulary_size * width
    return 12.0 * trained + kept * per_layer + boundary + logits + head + whole


def disk_needed(model: Any) -> float:
    """Bytes on disk at the most.

    Best, last, a second best during the swap, the control, and four checkpoints with moments:
    two of the run, two of its control or of a fold.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return 4.0 * trained * (4 + 4 * 3) + 50e6


def memory_available() -> float:
    """Bytes free on the device that trains; infinite where that cannot be told."""
    free = free_bytes(training_device())
    return math.inf if free is None else float(free)


def _shifted(values: np.ndarray) -> np.ndarray:
    shifted = values.copy()
    shifted[:-1] = values[1:]
    shifted[-1] = -1
    return shifted
