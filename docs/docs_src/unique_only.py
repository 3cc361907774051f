"""Unique only: Chinchilla where a token that is seen again counts for nothing.

L = E + A / N^alpha + B / U^beta with U unique tokens: the least that repetition can be worth.
"""

from dataclasses import dataclass

import numpy as np

from heldout import Law, Runs
from heldout.functions import Numbers, coefficient, exponent, power, unpack

SOURCE = "an example"
COST = "5 parameters from N and U"


def unique_only_loss(
    N: Numbers, U: Numbers, E: Numbers, A: Numbers, B: Numbers, alpha: Numbers, beta: Numbers
) -> np.ndarray:
    """Loss in nats per token; N parameters, U unique tokens."""
    return E + A * power(np.log(N), -alpha) + B * power(np.log(U), -beta)


@dataclass(frozen=True)
class UniqueOnly(Law):
    """L = E + A / N^alpha + B / U^beta."""

    PARAMETERS = (
        coefficient("E", "loss", "the floor"),
        coefficient("A", "loss * parameters^alpha", "what a small model costs"),
        coefficient("B", "loss * tokens^beta", "what few unique tokens cost"),
        exponent("alpha", "how fast more parameters help"),
        exponent("beta", "how fast more unique tokens help"),
    )
    FORMULA = "L = E + A/N^alpha + B/U^beta"
    KNOWS_REPETITION = True

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return unique_only_loss(runs.N, runs.U, *unpack(values))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        _, A, B, alpha, beta = unpack(values)
        log_N, log_U = np.log(runs.N), np.log(runs.U)
        per_A, per_B = power(log_N, -alpha), power(log_U, -beta)
        ones = np.ones_like(per_A)
        return np.stack([ones, per_A, per_B, -A * per_A * log_N, -B * per_B * log_U], axis=-1)
