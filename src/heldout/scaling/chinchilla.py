"""Chinchilla: a floor, one power law of parameters and one of tokens.

L = E + A / N^alpha + B / D^beta. At a compute of C = 6 N D the best model has
N* = G (C/6)^(beta/(alpha+beta)) with G = (alpha A / (beta B))^(1/(alpha+beta)). It knows nothing
of repetition: every token counts as new. The coefficient and the exponent of one term are almost
collinear, and E is known only where the runs come near it.
"""

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import Law, coefficient, exponent, power, unpack
from heldout.scaling.runs import Numbers, Runs

SOURCE = "Hoffmann et al. 2022, arXiv 2203.15556"
COST = "5 parameters from N and D; a certified fit of 240 runs in about 0.1 s"


def chinchilla_loss(
    N: Numbers,
    D: Numbers,
    E: Numbers,
    A: Numbers,
    B: Numbers,
    alpha: Numbers,
    beta: Numbers,
) -> np.ndarray:
    """Loss in nats per token; N parameters, D tokens seen."""
    return E + A * power(np.log(N), -alpha) + B * power(np.log(D), -beta)


def chinchilla_gradient(
    N: Numbers,
    D: Numbers,
    E: Numbers,
    A: Numbers,
    B: Numbers,
    alpha: Numbers,
    beta: Numbers,
) -> np.ndarray:
    """Derivatives to E, A, B, alpha, beta along a last dimension."""
    log_N, log_D = np.log(N), np.log(D)
    per_A, per_B = power(log_N, -alpha), power(log_D, -beta)
    ones = np.ones_like(per_A)
    return np.stack([ones, per_A, per_B, -A * per_A * log_N, -B * per_B * log_D], axis=-1)


def compute_optimum(
    flops: float, E: float, A: float, B: float, alpha: float, beta: float
) -> tuple[float, float]:
    """The N and D of the lowest loss at a compute of C = 6 N D."""
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = G * (flops / 6) ** (beta / (alpha + beta))
    return N, flops / 6 / N


@dataclass(frozen=True)
class Chinchilla(Law):
    """L = E + A / N^alpha + B / D^beta."""

    PARAMETERS = (
        coefficient("E", "loss", "the floor: loss of an infinite model on infinite data"),
        coefficient("A", "loss * parameters^alpha", "what a small model costs"),
        coefficient("B", "loss * tokens^beta", "what few tokens cost"),
        exponent("alpha", "how fast more parameters help"),
        exponent("beta", "how fast more tokens help"),
    )
    FORMULA = "L = E + A/N^alpha + B/D^beta"

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return chinchilla_loss(runs.N, runs.D, *unpack(values))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return chinchilla_gradient(runs.N, runs.D, *unpack(values))
