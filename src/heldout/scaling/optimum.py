"""The best model size and training length that a law knows for a compute and so many unique tokens.

The loss is looked up on a grid of N and of the share of the longest allowed training, and the grid
is drawn in around its lowest point. Longest allowed: by compute, C = 6 N D, and by epochs, D / U.
"""

# R draws of a law's parameters, n points of the grid

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from heldout.scaling.law import Law
from heldout.scaling.runs import Numbers, Runs, points

FLOPS_PER_TOKEN = 6  # and parameter, forward and backward
N_ENDS = (1e3, 1e14)
SHORTEST = 1e-6  # training, as a share of the longest allowed
NUM_ZOOMS = 8


@dataclass(frozen=True)
class Limits:
    """What a training may use: ``U`` unique tokens, ``flops`` in all, and so many epochs."""

    U: float
    flops: float = math.inf
    most_epochs: float = 1.0

    def most_tokens(self, N: Numbers) -> np.ndarray:
        """The longest training of N parameters, in tokens seen."""
        return np.minimum(self.most_epochs * self.U, self.flops / (FLOPS_PER_TOKEN * N))


def trained(N: ArrayLike, D: ArrayLike, U: float) -> Runs:
    """Trainings of D tokens out of U: those shorter than an epoch have seen D unique tokens."""
    N, D = np.broadcast_arrays(np.asarray(N, np.float64), np.asarray(D, np.float64))
    return points(N, D, np.minimum(D, U))


def best_point(
    law: Law, values: np.ndarray, limits: Limits, N: float | None = None
) -> tuple[float, float]:
    """N and D of the lowest loss within ``limits``; ``N`` given leaves only D to choose.

    Without a limit on compute the size must be given: larger may always be better.
    """
    assert N is not None or math.isfinite(limits.flops), "an unlimited size has no optimum"
    low = np.log([N or N_ENDS[0], SHORTEST])
    high = np.log([N or N_ENDS[1], 1.0])
    ends = low, high
    num = (1 if N else 81, 81)
    for _ in range(NUM_ZOOMS):
        axes = [np.linspace(low[i], high[i], num[i]) for i in range(2)]
        log_N, log_share = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        D = np.exp(log_share) * limits.most_tokens(np.exp(log_N))
        possible = D >= 1
        loss = np.where(
            possible, law.loss(trained(np.exp(log_N), np.maximum(D, 1), limits.U), values), np.inf
        )
        at = int(np.argmin(loss))
        center = np.array([log_N[at], log_share[at]])
        reach = 4 * (high - low) / np.maximum(np.array(num) - 1, 1)
        low, high = np.maximum(center - reach, ends[0]), np.minimum(center + reach, ends[1])
    size = N if N is not None else float(np.exp(center[0]))
    return size, float(np.exp(center[1]) * limits.most_tokens(size))


def best_points(
    law: Law, draws: np.ndarray, limits: Limits, N: float | None = None, around: float = 1e9
) -> tuple[np.ndarray, np.ndarray]:
    """N and D (R,) of the lowest loss under each draw (R, P), on one grid for all.

    ``around`` is a size near which the optima are looked for, within a factor of 1,000.
    """
    sizes = np.array([N]) if N else around * np.geomspace(1e-3, 1e3, 241)
    shares = np.geomspace(SHORTEST, 1.0, 241) if N else np.geomspace(1e-3, 1.0, 31)
    N_n, share_n = (axis.ravel() for axis in np.meshgrid(sizes, shares, indexing="ij"))
    D_n = share_n * limits.most_tokens(N_n)
    keep = D_n >= 1
    N_n, D_n = N_n[keep], D_n[keep]
    runs = trained(N_n, D_n, limits.U)
    at = np.concatenate(
        [law.loss(runs, draws[low : low + 50]).argmin(-1) for low in range(0, len(draws), 50)]
    )
    return N_n[at], D_n[at]
