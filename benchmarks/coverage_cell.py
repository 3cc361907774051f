"""One function that makes an interval, on one kind of data: how often it holds the truth."""

# D draws, G groups

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Interval

ORACLE_DRAWS = 40_000


@dataclass(frozen=True)
class Cell:
    """One function on one kind of data; ``is_extra``: no rule was tuned on it, outside criteria.

    ``draw(rng, D, G)`` gives arrays (D, ...); ``estimate`` their estimates (D,), ``interval`` the
    interval of one draw of them.
    """

    function: str
    kind: str
    truth: float
    draw: Callable[[np.random.Generator, int, int], tuple[np.ndarray, ...]]
    estimate: Callable[..., np.ndarray]
    interval: Callable[..., Interval]
    step: Callable[[int], float] = lambda num_groups: 0.0
    is_extra: bool = False
    oracle_draws: int = ORACLE_DRAWS

    def measured(self, num_groups: int, num_draws: int) -> dict[str, object]:
        name = f"{self.function}/{self.kind}/{num_groups}"
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        drawn = self.draw(rng, num_draws, num_groups)
        found = [self.interval(*(array[place] for array in drawn)) for place in range(num_draws)]
        given = [each for each in found if not each.is_withheld]
        many_D = self.estimate(*self.draw(rng, self.oracle_draws, num_groups))
        many_D = many_D + self.step(num_groups) * rng.uniform(-0.5, 0.5, self.oracle_draws)
        held = [each.low - 1e-12 <= self.truth <= each.high + 1e-12 for each in given]
        width = float(np.mean([each.high - each.low for each in given])) if given else 0.0
        return {
            "function": self.function,
            "kind": self.kind,
            "groups": num_groups,
            "coverage": float(np.mean(held)) if given else None,
            "withheld": 1 - len(given) / num_draws,
            "width_over_oracle": width / shortest_width(many_D) if given else None,
            "in_criteria": not self.is_extra,
        }


def shortest_width(values_D: np.ndarray, level: float = 0.95) -> float:
    """Of the intervals that hold ``level`` of the values."""
    values_D = np.sort(values_D)
    num = int(np.ceil(level * len(values_D)))
    return float((values_D[num - 1 :] - values_D[: len(values_D) - num + 1]).min())
