"""How far generated text lies from what people wrote in its place, on both sides.

One number for preference does not exist: of the simple measures, how well a text compresses agrees
best with annotators, and it still agrees with the wrong side where text is too varied. So a text is
compared with the range of human continuations of the same contexts and length; too flat counts like
too wild, and a text that repeats itself more than nearly every human one fails whatever else it is.
"""

# N texts, H human texts, M measures

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

INSIDE = 0.9  # share of human texts within the band of each measure


@dataclass(frozen=True)
class HumanBand:
    """The middle range of each measure over human texts, and the most repetition of nearly all."""

    lows: dict[str, float]
    highs: dict[str, float]
    most_repetition: float

    @classmethod
    def of(cls, human: Mapping[str, np.ndarray], repetition_H: np.ndarray) -> "HumanBand":
        """From the measures of human texts; ``repetition_H`` is their share of repeated 4-grams.

        Needs 8 texts, whose ends are then close to the least and the largest.
        """
        assert len(repetition_H) >= 8, "a band needs at least 8 human texts"
        tail = (1 - INSIDE) / 2
        ends = {name: np.quantile(values, [tail, 1 - tail]) for name, values in human.items()}
        return cls(
            {name: float(low) for name, (low, _) in ends.items()},
            {name: float(high) for name, (_, high) in ends.items()},
            float(np.quantile(repetition_H, 0.95)),
        )

    def distance(self, measures: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N,) mean over measures of the way to the band, in half widths of it; 0 inside."""
        parts_MN = []
        for name, low in self.lows.items():
            high = self.highs[name]
            half = max((high - low) / 2, 1e-9)
            values = np.asarray(measures[name], dtype=np.float64)
            parts_MN.append(np.maximum(np.maximum(low - values, values - high), 0.0) / half)
        return np.mean(parts_MN, axis=0)

    def passes(self, repetition_N: np.ndarray, *, allowed: float = 0.0) -> np.ndarray:
        """(N,) whether a text repeats itself no more than human ones, or than ``allowed``."""
        return np.asarray(repetition_N) <= max(self.most_repetition, allowed) + 1e-12

    def inside(self, measures: Mapping[str, np.ndarray], repetition_N: np.ndarray) -> np.ndarray:
        """(N,) whether a text passes the gate and lies within the band on every measure."""
        return self.passes(repetition_N) & (self.distance(measures) == 0)
