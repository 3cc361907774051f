"""Hybrid: Lovelace's penalty for repetition, saturating at a uniform guess as Practical does.

L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + P R^delta (N/U)^kappa with
R = max(D/U - 1, 0) repetitions. It shows overfitting as the epochs grow, and levels off at the loss
L0 of a uniform guess, as real runs do.
"""

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import Law, Parameter, coefficient, exponent, unpack
from heldout.scaling.lovelace import lovelace_gradient, lovelace_loss
from heldout.scaling.practical import (
    GPT2_UNIFORM_LOSS,
    check_uniform_loss,
    saturated,
    saturated_gradient,
    saturated_target,
)
from heldout.scaling.runs import Runs

SOURCE = "heldout, from arXiv 2605.01640 and arXiv 2605.09189"
COST = "8 parameters from N, D and U, and the loss of a uniform guess"


def hybrid_excess(N, D, U, a, b, P, alpha, beta, delta, kappa):
    """h, the excess before it saturates."""
    return lovelace_loss(N, D, U, 0.0, a, b, P, alpha, beta, delta, kappa)


def hybrid_excess_gradient(N, D, U, a, b, P, alpha, beta, delta, kappa) -> np.ndarray:
    """Derivatives of h to a, b, P, alpha, beta, delta, kappa along a last dimension."""
    return lovelace_gradient(N, D, U, 0.0, a, b, P, alpha, beta, delta, kappa)[..., 1:]


def hybrid_loss(N, D, U, uniform_loss, E, a, b, P, alpha, beta, delta, kappa):
    """Loss in the unit of ``uniform_loss``; N parameters, D tokens seen, U of them unique."""
    return saturated(hybrid_excess(N, D, U, a, b, P, alpha, beta, delta, kappa), E, uniform_loss)


@dataclass(frozen=True)
class Hybrid(Law):
    """L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + P R^delta (N/U)^kappa."""

    uniform_loss: float = GPT2_UNIFORM_LOSS

    PARAMETERS = (
        Parameter("E", "loss", "the floor", 1e-6, 1e3, (0.3, 0.97)),
        coefficient("a", "parameters^alpha", "what a small model costs"),
        coefficient("b", "tokens^beta", "what few tokens cost"),
        coefficient("P", "none", "what one repetition costs a model of one parameter a token"),
        exponent("alpha", "how fast more parameters help"),
        exponent("beta", "how fast more tokens help"),
        exponent("delta", "how fast the penalty grows with repetitions", (0.2, 2.5)),
        exponent("kappa", "how fast the penalty grows with the model", (0.1, 2.0)),
    )
    FORMULA = "L = E + (L0-E) h/(1+h), h = a/N^alpha + b/D^beta + P R^delta (N/U)^kappa"
    KNOWS_REPETITION = True
    SHOWS_OVERFITTING = True
    RISES_WITH_EPOCHS = True

    def __post_init__(self) -> None:
        check_uniform_loss("Hybrid", self.uniform_loss)

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return hybrid_loss(runs.N, runs.D, runs.U, self.uniform_loss, *unpack(values))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        E, *rest = unpack(values)
        h = hybrid_excess(runs.N, runs.D, runs.U, *rest)
        per = hybrid_excess_gradient(runs.N, runs.D, runs.U, *rest)
        return saturated_gradient(h, per, E, self.uniform_loss)

    def linear_form(self, runs, values):
        E, *rest = unpack(values)
        basis = hybrid_excess_gradient(runs.N, runs.D, runs.U, *rest)[..., :3]
        return basis, *saturated_target(runs.loss, E, self.uniform_loss)
