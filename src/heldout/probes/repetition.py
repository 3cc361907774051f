"""Repetition: how much generated text repeats itself, against base model and human text.

All texts are cut to one length per prompt first. Greedy text repeats most in models that are
*under*fitted, so a level alone says nothing: the contrasts do.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from heldout.core.equal_lengths import (
    HUMAN,
    EqualLengths,
    compared_means,
    equal_lengths,
    judged_part,
    too_few,
)
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.ngrams import ngrams
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate

SOURCE = (
    "seq-rep-n: Welleck et al. 2020, arXiv 1908.04319; compression: Shaib et al. 2024, "
    "arXiv 2403.00553; diversity: Su et al. 2022, arXiv 2202.06417"
)
COST = "generation of the continuations that all probes of generated text share"


@dataclass(frozen=True)
class Repetition(Probe):
    """Shares of repeated n-grams, type-token ratio, compression ratio, diversity, and endings."""

    ttr_window: int = 96  # tokens; fewer where fewer than three quarters of the texts have them

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            beside = equal_lengths(evidence, model)
            if beside is not None:
                found += self._of(model, beside)
            elif model == "best":
                found.append(too_few("seq_rep_4_best", evidence))
            ended = _ended(evidence, model)
            if ended is not None:
                found.append(ended)
        return found

    def _of(self, model: str, beside: EqualLengths) -> list[Measurement]:
        note = f"equal lengths of {beside.lengths_P.mean():.0f} tokens on average"

        def of_ids(
            name: str,
            unit: str,
            value: Callable[[np.ndarray], float],
            weights_P: np.ndarray | None = None,
            kept: np.ndarray | None = None,
            note: str = note,
        ) -> Measurement:
            keep = np.ones(len(beside), dtype=bool) if kept is None else kept
            values = {
                writer: np.array([value(ids) for ids, k in zip(texts, keep, strict=True) if k])
                for writer, texts in beside.ids.items()
            }
            return compared_means(
                f"{name}_{model}", unit, values, beside.groups_P[keep], model, weights_P, note
            )

        window = int(min(self.ttr_window, np.quantile(beside.lengths_P, 0.25)))
        long = beside.lengths_P >= window
        compression = {
            writer: np.array([compression_ratio(text) for text in texts])
            for writer, texts in beside.texts.items()
        }
        return [
            *(
                of_ids(
                    f"rep_{n}",
                    f"share of {n}-grams",
                    partial(repeated_share, n=n),
                    weights_P=(beside.lengths_P - n + 1).astype(np.float64),
                )
                for n in (2, 3, 4)
            ),
            of_ids("seq_rep_4", "mean share of 4-grams", partial(repeated_share, n=4)),
            of_ids(
                "ttr",
                "types per token",
                partial(type_token_ratio, window=window),
                kept=long,
                note=f"the first {window} tokens",
            ),
            of_ids("diversity", "product of unrepeated shares", diversity),
            compared_means(
                f"compression_ratio_{model}",
                "bytes per compressed byte",
                compression,
                beside.groups_P,
                model,
                note="zlib, texts of equal numbers of characters",
            ),
        ]


def repeated_share(ids: Sequence[int] | np.ndarray, n: int) -> float:
    """rep-n of one sequence: 1 - unique / all n-grams; 0 for a sequence of fewer than n tokens.

    People: about 0.006 for n = 4 over a few hundred tokens; greedy GPT-2: about 0.44.
    """
    num = len(ids) - n + 1
    if num < 1:
        return 0.0
    return 1 - len(set(ngrams(ids, n))) / num


def type_token_ratio(ids: Sequence[int] | np.ndarray, window: int) -> float:
    """Different tokens among the first ``window`` over their number: 1 where none repeats.

    Falls with the length, so texts must all have ``window`` tokens.
    """
    first = list(ids[:window])
    return len(set(first)) / max(1, len(first))


def diversity(ids: Sequence[int] | np.ndarray) -> float:
    """Product of 1 - rep-n over n = 2, 3, 4: 1 where nothing repeats; people: about 0.93."""
    return float(np.prod([1 - repeated_share(ids, n) for n in (2, 3, 4)]))


def compression_ratio(text: str) -> float:
    """UTF-8 bytes over zlib bytes: higher is more redundant; depends on the length of the text."""
    whole = text.encode("utf-8", "surrogatepass")
    return len(whole) / len(zlib.compress(whole, 9))


def _ended(evidence: Evidence, model: str) -> Measurement | None:
    """The share of texts that end before the limit; a reference ends where its document does."""
    part = judged_part(evidence, model)
    if part is None:
        return None
    own = evidence.generations[model, part]
    if not len(own) or not own.new_tokens:
        return None
    share, interval = share_estimate(own.ended, own.groups)
    short = [len(ids) < own.new_tokens for ids in own.reference_ids]
    controls = {HUMAN: share_estimate(short, own.groups)}
    base = evidence.generations.get(("base", part))
    if base is not None and model != "base" and len(base):
        controls["base"] = share_estimate(base.ended, base.groups)
    return Measurement(
        name=f"ended_{model}",
        value=share,
        unit="share of texts",
        num_units=len(np.unique(own.groups)),
        resampled_unit="group of prompts",
        interval=interval,
        contrasts={
            control: difference_of_shares((share, interval), estimate)
            for control, estimate in controls.items()
        },
        note=f"before the limit of {own.new_tokens} tokens",
    )
