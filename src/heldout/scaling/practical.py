"""Practical: excess loss that saturates at a uniform guess, with a term for few unique tokens.

L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + c N^gamma / U^delta, where L0 is the
loss of a uniform guess over the vocabulary. Stays between E and L0 whatever it is asked. Its
overfitting does not depend on the epochs: it is that of training for as long as the runs did.
"""

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import Parameter, coefficient, exponent, power
from heldout.scaling.runs import Numbers, Runs
from heldout.scaling.saturating import SaturatingLaw

SOURCE = "Practical scaling law 2026, arXiv 2605.09189"
COST = "8 parameters from N, D and U, and the loss of a uniform guess"


def practical_excess(
    N: Numbers,
    D: Numbers,
    U: Numbers,
    a: Numbers,
    b: Numbers,
    c: Numbers,
    alpha: Numbers,
    beta: Numbers,
    gamma: Numbers,
    delta: Numbers,
) -> np.ndarray:
    """h, the excess before it saturates."""
    load = power(np.log(N), gamma) * power(np.log(U), -delta)
    return a * power(np.log(N), -alpha) + b * power(np.log(D), -beta) + c * load


def practical_excess_gradient(
    N: Numbers,
    D: Numbers,
    U: Numbers,
    a: Numbers,
    b: Numbers,
    c: Numbers,
    alpha: Numbers,
    beta: Numbers,
    gamma: Numbers,
    delta: Numbers,
) -> np.ndarray:
    """Derivatives of h to a, b, c, alpha, beta, gamma, delta along a last dimension."""
    log_N, log_D, log_U = np.log(N), np.log(D), np.log(U)
    per_a, per_b = power(log_N, -alpha), power(log_D, -beta)
    per_c = power(log_N, gamma) * power(log_U, -delta)
    return np.stack(
        [
            per_a,
            per_b,
            per_c,
            -a * per_a * log_N,
            -b * per_b * log_D,
            c * per_c * log_N,
            -c * per_c * log_U,
        ],
        axis=-1,
    )


@dataclass(frozen=True)
class Practical(SaturatingLaw):
    """L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + c N^gamma / U^delta."""

    PARAMETERS = (
        Parameter("E", "loss", "the floor", 1e-6, 1e3, (0.3, 0.97)),
        coefficient("a", "parameters^alpha", "what a small model costs"),
        coefficient("b", "tokens^beta", "what few tokens cost"),
        coefficient("c", "tokens^delta / parameters^gamma", "what few unique tokens cost"),
        exponent("alpha", "how fast more parameters help"),
        exponent("beta", "how fast more tokens help"),
        exponent("gamma", "how fast few unique tokens cost a larger model more", (0.05, 1.5)),
        exponent("delta", "how fast more unique tokens help", (0.1, 2.0)),
    )
    FORMULA = "L = E + (L0-E) h/(1+h), h = a/N^alpha + b/D^beta + c N^gamma/U^delta"
    KNOWS_REPETITION = True
    SHOWS_OVERFITTING = True

    def excess(self, runs: Runs, *parameters: np.ndarray) -> np.ndarray:
        return practical_excess(runs.N, runs.D, runs.U, *parameters)

    def excess_gradient(self, runs: Runs, *parameters: np.ndarray) -> np.ndarray:
        return practical_excess_gradient(runs.N, runs.D, runs.U, *parameters)
