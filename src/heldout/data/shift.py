"""How far two texts lie apart by their words alone, beyond what chance gives such groups."""

# G groups, W words

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

from heldout.core.row import Row
from heldout.core.segments import ALONE, folded

NUM_PERMUTATIONS = 199
LEAST_GROUPS = 8  # on each side
MOST_WORDS = 4000  # the most frequent; all others are one word
_LETTER = rf"[\p{{L}}--{ALONE}]"
# Digits and marks count one by one: numbers would be as many words as there are.
_WORD = regex.compile(rf"(?V1){ALONE}\p{{M}}*+|{_LETTER}[{_LETTER}\p{{M}}]*+|\p{{N}}|[^\w\s]")


@dataclass(frozen=True)
class Shift:
    """Jensen-Shannon divergence of the words, in bits; 0 to 1."""

    divergence: float
    by_chance: float  # the mean, with groups dealt out at random
    p_value: float

    @property
    def beyond_chance(self) -> float:
        return self.divergence - self.by_chance


def word_shift(first: Sequence[Row], second: Sequence[Row], *, seed: int = 0) -> Shift | None:
    """Divergence of the words of two samples of rows, against the same groups dealt out at random.

    Groups are permuted, not rows, since rows of a group share their words. None with fewer than 8
    groups on a side. Cost: 200 sums over a table of groups by words.
    Source: two-sample permutation test (Good 2005); Lin 1991 for the divergence.
    """
    names_G = [f"1 {row.group}" for row in first] + [f"2 {row.group}" for row in second]
    names = sorted(set(names_G))
    num_first = sum(name.startswith("1 ") for name in names)
    if min(num_first, len(names) - num_first) < LEAST_GROUPS:
        return None
    counts_GW = _counts([*first, *second], names_G, names)
    observed = _divergence(counts_GW, np.arange(len(names)) < num_first)
    rng = np.random.default_rng(seed)
    by_chance = np.array(
        [
            _divergence(counts_GW, rng.permutation(len(names)) < num_first)
            for _ in range(NUM_PERMUTATIONS)
        ]
    )
    reached = int((by_chance >= observed).sum())
    return Shift(observed, float(by_chance.mean()), (reached + 1) / (NUM_PERMUTATIONS + 1))


def _counts(rows: list[Row], names_of_rows: list[str], names: list[str]) -> np.ndarray:
    split = [_WORD.findall(folded(row.text)) for row in rows]
    totals: dict[str, int] = {}
    for words in split:
        for word in words:
            totals[word] = totals.get(word, 0) + 1
    frequent = sorted(totals, key=lambda word: (-totals[word], word))[:MOST_WORDS]
    column = {word: place for place, word in enumerate(frequent)}
    place_of = {name: place for place, name in enumerate(names)}
    counts_GW = np.zeros((len(names), len(frequent) + 1))
    for name, words in zip(names_of_rows, split, strict=True):
        for word in words:
            counts_GW[place_of[name], column.get(word, len(frequent))] += 1
    return counts_GW


def _divergence(counts_GW: np.ndarray, is_first_G: np.ndarray) -> float:
    p_W = counts_GW[is_first_G].sum(axis=0)
    q_W = counts_GW[~is_first_G].sum(axis=0)
    p_W, q_W = p_W / max(1.0, p_W.sum()), q_W / max(1.0, q_W.sum())
    middle_W = (p_W + q_W) / 2
    return float((_relative_entropy(p_W, middle_W) + _relative_entropy(q_W, middle_W)) / 2)


def _relative_entropy(p_W: np.ndarray, q_W: np.ndarray) -> float:
    some = p_W > 0
    return float((p_W[some] * np.log2(p_W[some] / q_W[some])).sum())
