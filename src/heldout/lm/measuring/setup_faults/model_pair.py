"""Two models on samples of rows, and how far their losses lie apart, in numbers and in words."""

# T tokens of one window

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heldout.core.row import Row
from heldout.core.stats import RatioEstimate, ratio_estimate
from heldout.lm.measuring.token_nats import token_nats_of
from heldout.lm.tokenize import Window

SAMPLE_ROWS = 32
SAMPLE_TOKENS = 192  # of a row, but for its end


@dataclass(frozen=True)
class ModelPair:
    """Two models on samples of rows; the base is None where its tokens would be others.

    ``labels_known``: training scored what ``tokenize_row`` scores, as a run of heldout does.
    ``prompts_meant``: it was meant to score prompts as well.
    """

    model: torch.nn.Module
    base: torch.nn.Module | None
    tokenizer: Any
    train: list[Row]
    heldout: list[Row]
    max_length: int
    batch_size: int
    labels_known: bool = False
    prompts_meant: bool = False

    def nats(self, model: torch.nn.Module, windows: Sequence[Window]) -> list[np.ndarray]:
        """(T,) loss of every scored token, window by window."""
        return token_nats_of(model, windows, self.tokenizer, self.batch_size)


def sampled(rows: Sequence[Row]) -> list[Row]:
    """Of as many groups as there are, spread evenly over the rows."""
    seen: Counter[str] = Counter()
    turns: dict[int, list[Row]] = {}  # how many rows of the group came before -> rows
    for row in rows:
        turns.setdefault(seen[row.group], []).append(row)
        seen[row.group] += 1
    chosen: list[Row] = []
    for turn in sorted(turns):
        room = min(SAMPLE_ROWS - len(chosen), len(turns[turn]))
        places = np.linspace(0, len(turns[turn]) - 1, room).round().astype(int)
        chosen += [turns[turn][place] for place in places]
    return chosen


def minus(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Token by token, of each window."""
    return [first_T - second_T for first_T, second_T in zip(first, second, strict=True)]


def mean_per_token(rows: Sequence[Row], values: Sequence[np.ndarray]) -> RatioEstimate:
    """Mean over the tokens of all rows, with its interval over groups."""
    sums, sizes = [float(v.sum()) for v in values], [len(v) for v in values]
    return ratio_estimate(sums, sizes, [row.group for row in rows], signed=True)


def change_in_words(saved: RatioEstimate) -> str:
    """From what was saved: ``fell by 0.5 [0.4, 0.6]``."""
    low, high = saved.interval.low, saved.interval.high
    if low <= 0 <= high:
        return f"changed by {-saved.value:+.3f} {saved.interval.moved(times=-1).brackets('+.3f')}"
    low, high = sorted((abs(low), abs(high)))
    verb = "fell" if saved.value > 0 else "rose"
    return f"{verb} by {abs(saved.value):.3f} [{low:.3f}, {high:.3f}]"
