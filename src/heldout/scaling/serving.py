"""Inference-aware size: the cheapest model of a given loss when it is also to be served.

min 6 N D + 2 N D_inference subject to L(N, D) = target (Sardana et al. 2023, arXiv 2401.00448): a
smaller model trained for longer costs more to train and less to serve.
"""

# n sizes, t training lengths

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import Law
from heldout.scaling.optimum import FLOPS_PER_TOKEN, N_ENDS, Limits, trained

FLOPS_PER_SERVED_TOKEN = 2  # and parameter: a forward alone
NUM_ZOOMS = 6


@dataclass(frozen=True)
class Served:
    """A training that reaches the target, and what it and the serving cost in FLOPs."""

    N: float
    D: float
    training_flops: float
    serving_flops: float

    @property
    def flops(self) -> float:
        return self.training_flops + self.serving_flops


def cheapest(
    law: Law, values: np.ndarray, limits: Limits, target: float, served_tokens: float
) -> Served | None:
    """The lowest cost of training to ``target`` and serving; None where no size reaches it.

    ``limits`` bounds the epochs; its compute is not used, for compute is what is minimized.
    """
    low, high = np.log(N_ENDS)
    best = None
    for _ in range(NUM_ZOOMS):
        N_n = np.exp(np.linspace(low, high, 161))
        D_n = shortest_training(law, values, limits, target, N_n)
        with np.errstate(invalid="ignore"):
            cost_n = FLOPS_PER_TOKEN * N_n * D_n + FLOPS_PER_SERVED_TOKEN * N_n * served_tokens
        if not np.isfinite(cost_n).any():
            return best
        at = int(np.nanargmin(cost_n))
        best = Served(
            float(N_n[at]),
            float(D_n[at]),
            float(FLOPS_PER_TOKEN * N_n[at] * D_n[at]),
            float(FLOPS_PER_SERVED_TOKEN * N_n[at] * served_tokens),
        )
        reach = 3 * (high - low) / 160
        low, high = np.log(N_n[at]) - reach, np.log(N_n[at]) + reach
    return best


def shortest_training(
    law: Law, values: np.ndarray, limits: Limits, target: float, N: np.ndarray
) -> np.ndarray:
    """Fewest tokens (n,) with which each size (n,) reaches the loss ``target``; inf where none.

    By bisection between the last length of a scan that misses it and the first that does not.
    """
    most = limits.most_epochs * limits.U
    lengths_t = np.geomspace(min(1.0, most / 2), most, 121)
    log_low, log_high = np.log(lengths_t[:-1]), np.log(lengths_t[1:])

    def reaches(D: np.ndarray) -> np.ndarray:
        shape = np.broadcast_shapes(N.shape, D.shape)
        runs = trained(
            np.broadcast_to(N, shape).ravel(), np.broadcast_to(D, shape).ravel(), limits.U
        )
        return (law.loss(runs, values) <= target).reshape(shape)

    reached_tn = reaches(lengths_t[:, None])
    possible = reached_tn.any(0)
    first = np.where(possible, reached_tn.argmax(0), 1)
    place = np.maximum(first - 1, 0)
    low, high = log_low[place], log_high[place]
    for _ in range(40):
        middle = (low + high) / 2
        enough = reaches(np.exp(middle))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(possible, np.exp(high), np.inf)
