"""Coherence: how text changes with its length: repetition, neighboring sentences, and its loss.

By position from the start, against what base model and people write there. A text that runs dry
repeats itself more and more, and its loss under the base model falls; one that comes apart is more
and more surprising.
"""

# P prompts, T tokens

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.equal_lengths import (
    HUMAN,
    LEAST_GROUPS,
    LEAST_PROMPTS,
    EqualLengths,
    compared_means,
    equal_lengths,
    judged_part,
    too_few,
)
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.segments import sentences

SOURCE = (
    "repetition by position: after Welleck et al. 2020, arXiv 1908.04319; adjacent sentences: "
    "Foltz, Kintsch and Landauer 1998, with character n-grams"
)
COST = "nothing beyond the shared generations and one forward pass of the base model over them"

EDGES = (0, 16, 32, 64, 128, 256, 512)  # tokens from the start of the continuation
FEATURES = 1 << 16
GRAM = 3  # characters


@dataclass(frozen=True)
class Coherence(Probe):
    """Values by position, and late minus early: the second half of each text minus the first."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            beside = equal_lengths(evidence, model)
            if beside is not None:
                repeated = {
                    writer: [repeated_so_far(ids).astype(np.float64) for ids in texts]
                    for writer, texts in beside.ids.items()
                }
                found += _by_position("repetition", "share of 4-grams", repeated, beside, model)
                found.append(_similarity(beside, model))
                nats = _nats(evidence, beside, model)
                if nats:
                    found += _by_position("nll", "nats/token", nats, beside, model)
                elif model == "best":
                    reason = "the generated text was not scored by the base model"
                    found.append(NotMeasured("coherence_nll_drift_best", reason))
            elif model == "best":
                found.append(too_few("coherence_repetition_drift_best", evidence))
        return found


def repeated_so_far(ids: Sequence[int] | np.ndarray, n: int = 4) -> np.ndarray:
    """(T,) whether the ``n`` tokens that end at each place have come before in the same text."""
    tokens = [int(token) for token in ids]
    seen: set[tuple[int, ...]] = set()
    found = np.zeros(len(tokens), dtype=bool)
    for stop in range(n, len(tokens) + 1):
        ngram = tuple(tokens[stop - n : stop])
        found[stop - 1] = ngram in seen
        seen.add(ngram)
    return found


def adjacent_similarity(text: str) -> np.ndarray:
    """Cosine of the hashed character n-grams of each sentence and the next, 0 to 1.

    1 where a sentence is said again, near 0 where it has nothing to do with the last. A text of
    one sentence has no pair.
    """
    parts = [part for part in sentences(text)[::2] if part.strip()]
    vectors = [_counts(part) for part in parts]
    return np.array([_cosine(first, second) for first, second in itertools.pairwise(vectors)])


def late_minus_early(values_T: np.ndarray) -> float:
    """Mean over the second half of a text minus the mean over the first."""
    half = len(values_T) // 2
    return float(values_T[len(values_T) - half :].mean() - values_T[:half].mean())


def _by_position(
    name: str, unit: str, values: dict[str, list[np.ndarray]], beside: EqualLengths, model: str
) -> list[Measurement]:
    found = [
        compared_means(
            f"coherence_{name}_drift_{model}",
            f"{unit}, late minus early",
            {
                writer: np.array([late_minus_early(of_one) for of_one in texts])
                for writer, texts in values.items()
            },
            beside.groups_P,
            model,
        )
    ]
    for start, stop in zip(EDGES, (*EDGES[1:], None), strict=True):
        there = beside.lengths_P > start
        if model == "best" and _enough(there, beside):
            parts = {
                writer: [
                    of_one[start:stop] for of_one, long in zip(texts, there, strict=True) if long
                ]
                for writer, texts in values.items()
            }
            found.append(
                compared_means(
                    f"coherence_{name}_at_{start}_{model}",
                    unit,
                    {
                        writer: np.array([part.mean() for part in of_writer])
                        for writer, of_writer in parts.items()
                    },
                    beside.groups_P[there],
                    model,
                    np.array([len(part) for part in parts[model]], dtype=np.float64),
                    f"from token {start} on" if stop is None else f"tokens {start} to {stop}",
                )
            )
    return found


def _similarity(beside: EqualLengths, model: str) -> Measurement | NotMeasured:
    similar = {
        writer: [adjacent_similarity(text) for text in texts]
        for writer, texts in beside.texts.items()
    }
    there = np.array(
        [min(map(len, of_prompt)) > 0 for of_prompt in zip(*similar.values(), strict=True)]
    )
    name = f"coherence_similarity_{model}"
    if not _enough(there, beside):
        reason = f"needs {LEAST_PROMPTS} prompts after which all write two sentences or more"
        return NotMeasured(name, reason)
    return compared_means(
        name,
        "cosine of adjacent sentences",
        {
            writer: np.array(
                [values.mean() for values, has in zip(texts, there, strict=True) if has]
            )
            for writer, texts in similar.items()
        },
        beside.groups_P[there],
        model,
    )


def _nats(
    evidence: Evidence, beside: EqualLengths, model: str
) -> dict[str, list[np.ndarray]] | None:
    """Loss of the compared tokens under the base model, None where it was not measured."""
    part = judged_part(evidence, model)
    assert part is not None, "texts to compare come from a part"
    found: dict[str, list[np.ndarray]] = {}
    for writer in beside.ids:
        generated = evidence.generations["base" if writer == "base" else model, part]
        nats = generated.reference_nats if writer == HUMAN else generated.own_nats
        if nats is None:
            if writer == "base":
                continue
            return None
        place_of = {int(row): place for place, row in enumerate(generated.row_index)}
        found[writer] = [
            nats[place_of[int(row)]][:length]
            for row, length in zip(beside.row_index_P, beside.lengths_P, strict=True)
        ]
    return found


def _enough(there: np.ndarray, beside: EqualLengths) -> bool:
    return there.sum() >= LEAST_PROMPTS and len(np.unique(beside.groups_P[there])) >= LEAST_GROUPS


def _counts(sentence: str) -> dict[int, int]:
    folded = " ".join(sentence.casefold().split())
    found: dict[int, int] = {}
    for start in range(max(1, len(folded) - GRAM + 1)):
        gram = zlib.crc32(folded[start : start + GRAM].encode("utf-8", "surrogatepass")) % FEATURES
        found[gram] = found.get(gram, 0) + 1
    return found


def _cosine(first: dict[int, int], second: dict[int, int]) -> float:
    dot = sum(count * second.get(gram, 0) for gram, count in first.items())
    sizes = [sum(count**2 for count in vector.values()) for vector in (first, second)]
    return dot / (sizes[0] * sizes[1]) ** 0.5
