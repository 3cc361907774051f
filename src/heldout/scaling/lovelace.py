"""Lovelace: Chinchilla with a penalty for repeated tokens that grows with the model.

L = E + A / N^alpha + B / D^beta + P R^delta (N/U)^kappa, with R = max(D/U - 1, 0) repetitions of
U unique tokens. It can show overfitting: past some epochs the loss rises. The penalty grows without
bound, so it overshoots where the loss saturates. Strong weight decay makes P smaller: fit runs of
one recipe at a time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heldout.scaling.chinchilla import chinchilla_gradient, chinchilla_loss
from heldout.scaling.law import Law, coefficient, exponent, power, unpack
from heldout.scaling.runs import Numbers, Runs, log_repetitions

SOURCE = "Lovelace et al. 2026, arXiv 2605.01640"
COST = "8 parameters from N, D and U; runs of several epochs are needed"


class LovelaceParameters(NamedTuple):
    """In the order of ``Lovelace.PARAMETERS``; numbers, or arrays that broadcast over runs."""

    E: Numbers
    A: Numbers
    B: Numbers
    P: Numbers
    alpha: Numbers
    beta: Numbers
    delta: Numbers
    kappa: Numbers


def repetition_penalty(
    N: Numbers, D: Numbers, U: Numbers, P: Numbers, delta: Numbers, kappa: Numbers
) -> np.ndarray:
    """P R^delta (N/U)^kappa; zero without repetition."""
    return P * power(log_repetitions(D, U), delta) * power(np.log(N) - np.log(U), kappa)


def repetition_gradient(
    N: Numbers, D: Numbers, U: Numbers, P: Numbers, delta: Numbers, kappa: Numbers
) -> np.ndarray:
    """Derivatives of the penalty to P, delta, kappa along a last dimension."""
    log_R, log_load = log_repetitions(D, U), np.log(N) - np.log(U)
    per_P = power(log_R, delta) * power(log_load, kappa)
    finite_log_R = np.where(np.isneginf(log_R), 0.0, log_R)
    return np.stack([per_P, P * per_P * finite_log_R, P * per_P * log_load], axis=-1)


def lovelace_loss(N: Numbers, D: Numbers, U: Numbers, parameters: LovelaceParameters) -> np.ndarray:
    """Loss in nats per token; N parameters, D tokens seen, U of them unique."""
    E, A, B, P, alpha, beta, delta, kappa = parameters
    penalty = repetition_penalty(N, D, U, P, delta, kappa)
    return chinchilla_loss(N, D, E, A, B, alpha, beta) + penalty


def lovelace_gradient(
    N: Numbers, D: Numbers, U: Numbers, parameters: LovelaceParameters
) -> np.ndarray:
    """Derivatives to E, A, B, P, alpha, beta, delta, kappa along a last dimension."""
    E, A, B, P, alpha, beta, delta, kappa = parameters
    first = chinchilla_gradient(N, D, E, A, B, alpha, beta)
    second = repetition_gradient(N, D, U, P, delta, kappa)
    return np.concatenate(
        [first[..., :3], second[..., :1], first[..., 3:], second[..., 1:]], axis=-1
    )


@dataclass(frozen=True)
class Lovelace(Law):
    """L = E + A / N^alpha + B / D^beta + P R^delta (N/U)^kappa."""

    PARAMETERS = (
        coefficient("E", "loss", "the floor: loss of an infinite model on infinite data"),
        coefficient("A", "loss * parameters^alpha", "what a small model costs"),
        coefficient("B", "loss * tokens^beta", "what few tokens cost"),
        coefficient("P", "loss", "what one repetition costs a model of one parameter a token"),
        exponent("alpha", "how fast more parameters help"),
        exponent("beta", "how fast more tokens help"),
        exponent("delta", "how fast the penalty grows with repetitions", (0.2, 2.5)),
        exponent("kappa", "how fast the penalty grows with the model", (0.1, 2.0)),
    )
    FORMULA = "L = E + A/N^alpha + B/D^beta + P R^delta (N/U)^kappa, R = D/U - 1"
    KNOWS_REPETITION = True
    SHOWS_OVERFITTING = True
    RISES_WITH_EPOCHS = True

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return lovelace_loss(runs.N, runs.D, runs.U, LovelaceParameters(*unpack(values)))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return lovelace_gradient(runs.N, runs.D, runs.U, LovelaceParameters(*unpack(values)))
