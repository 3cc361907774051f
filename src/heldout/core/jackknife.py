"""The spread of what is no mean of rows, from the whole with groups left out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def jackknife_values(
    statistic: Callable[[np.ndarray], float], groups: ArrayLike, most_blocks: int = 30
) -> np.ndarray:
    """Pseudo-values of a statistic of the whole sample: their mean is it, their spread its own.

    ``statistic(keep)`` gets a mask of rows. Groups are left out one at a time, or in at most
    ``most_blocks`` blocks of groups: one recomputation each. For what is no mean of rows, such as a
    mean over pairs (Efron and Tibshirani 1993, chapter 11). Two statistics of the same rows have
    paired pseudo-values. The resampled unit is the block.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    num_blocks = min(most_blocks, len(names))
    block = (np.arange(len(names)) % num_blocks)[index]
    whole = statistic(np.ones(len(block), dtype=bool))
    without = np.array([statistic(block != number) for number in range(num_blocks)])
    return whole + (num_blocks - 1) * (without.mean() - without)
