"""Over-training: power laws of compute, one for each number of tokens per parameter.

L = E + (a M^eta + b M^-eta) C^-eta with M = D / N and C = 6 N D: training longer than the compute
optimum moves the curve up and leaves its slope as it is. The same as Chinchilla's law with both
exponents 2 eta, so it has one parameter less and needs runs at two or more values of M. It knows
nothing of repetition.
"""

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import Law, Parameter, coefficient, power, unpack
from heldout.scaling.runs import Numbers, Runs

SOURCE = "Gadre et al. 2024, arXiv 2403.08540"
COST = "4 parameters from N and D"


def over_training_loss(
    N: Numbers, D: Numbers, E: Numbers, a: Numbers, b: Numbers, eta: Numbers
) -> np.ndarray:
    """Loss in nats per token; N parameters, D tokens seen."""
    log_C, log_M = np.log(6.0) + np.log(N) + np.log(D), np.log(D) - np.log(N)
    return E + a * power(log_M - log_C, eta) + b * power(-log_M - log_C, eta)


def over_training_gradient(
    N: Numbers, D: Numbers, E: Numbers, a: Numbers, b: Numbers, eta: Numbers
) -> np.ndarray:
    """Derivatives to E, a, b, eta along a last dimension."""
    log_C, log_M = np.log(6.0) + np.log(N) + np.log(D), np.log(D) - np.log(N)
    per_a, per_b = power(log_M - log_C, eta), power(-log_M - log_C, eta)
    ones = np.ones_like(per_a)
    per_eta = a * per_a * (log_M - log_C) + b * per_b * (-log_M - log_C)
    return np.stack([ones, per_a, per_b, per_eta], axis=-1)


@dataclass(frozen=True)
class OverTraining(Law):
    """L = E + (a M^eta + b M^-eta) C^-eta."""

    PARAMETERS = (
        coefficient("E", "loss", "the floor: loss of an infinite model on infinite data"),
        coefficient("a", "loss * FLOPs^eta", "what a small model costs"),
        coefficient("b", "loss * FLOPs^eta", "what few tokens cost"),
        Parameter("eta", "none", "how fast more compute helps", 0, 2, (0.02, 0.6), False),
    )
    FORMULA = "L = E + (a M^eta + b M^-eta) C^-eta, M = D/N, C = 6ND"

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return over_training_loss(runs.N, runs.D, *unpack(values))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return over_training_gradient(runs.N, runs.D, *unpack(values))
