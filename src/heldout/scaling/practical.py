"""Practical: excess loss that saturates at a uniform guess, with a term for few unique tokens.

L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + c N^gamma / U^delta, where L0 is the
loss of a uniform guess over the vocabulary. Stays between E and L0 whatever it is asked. Its
overfitting does not depend on the epochs: it is that of training for as long as the runs did.
"""

from dataclasses import dataclass

import numpy as np

from heldout.core.errors import UserError
from heldout.scaling.law import Law, Parameter, coefficient, exponent, power, unpack
from heldout.scaling.runs import Runs

SOURCE = "Practical scaling law 2026, arXiv 2605.09189"
COST = "8 parameters from N, D and U, and the loss of a uniform guess"

GPT2_UNIFORM_LOSS = float(np.log(50_257))


def saturated(h, E, uniform_loss):
    """E + (L0 - E) h / (1 + h)."""
    return E + (uniform_loss - E) * (h / (1 + h))


def saturated_gradient(h, per_parameter, E, uniform_loss) -> np.ndarray:
    """Derivatives to E and to the parameters of h, from h and its derivatives (..., n, P - 1)."""
    per_h = (uniform_loss - E) / (1 + h) ** 2
    per_E = np.broadcast_to(1 / (1 + h), per_h.shape)
    return np.concatenate([per_E[..., None], per_h[..., None] * per_parameter], axis=-1)


def saturated_target(loss, E, uniform_loss) -> tuple[np.ndarray, np.ndarray]:
    """The h that gives a loss, and the weight that makes its error one of the log loss."""
    share = np.clip((loss - E) / (uniform_loss - E), 1e-3, 0.98)
    h = share / (1 - share)
    return h, (uniform_loss - E) / (1 + h) ** 2 / loss


def practical_excess(N, D, U, a, b, c, alpha, beta, gamma, delta):
    """h, the excess before it saturates."""
    load = power(np.log(N), gamma) * power(np.log(U), -delta)
    return a * power(np.log(N), -alpha) + b * power(np.log(D), -beta) + c * load


def practical_excess_gradient(N, D, U, a, b, c, alpha, beta, gamma, delta) -> np.ndarray:
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


def practical_loss(N, D, U, uniform_loss, E, a, b, c, alpha, beta, gamma, delta):
    """Loss in the unit of ``uniform_loss``; N parameters, D tokens seen, U of them unique."""
    return saturated(practical_excess(N, D, U, a, b, c, alpha, beta, gamma, delta), E, uniform_loss)


@dataclass(frozen=True)
class Practical(Law):
    """L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + c N^gamma / U^delta."""

    uniform_loss: float = GPT2_UNIFORM_LOSS

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

    def __post_init__(self) -> None:
        check_uniform_loss("Practical", self.uniform_loss)

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return practical_loss(runs.N, runs.D, runs.U, self.uniform_loss, *unpack(values))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        E, *rest = unpack(values)
        h = practical_excess(runs.N, runs.D, runs.U, *rest)
        per = practical_excess_gradient(runs.N, runs.D, runs.U, *rest)
        return saturated_gradient(h, per, E, self.uniform_loss)

    def linear_form(self, runs, values):
        E, *rest = unpack(values)
        basis = practical_excess_gradient(runs.N, runs.D, runs.U, *rest)[..., :3]
        return basis, *saturated_target(runs.loss, E, self.uniform_loss)


def check_uniform_loss(law: str, uniform_loss: float) -> None:
    if not uniform_loss > 0:
        raise UserError(
            f"{law}(uniform_loss=...) must be positive, the loss of a uniform guess over the "
            f"vocabulary, got {uniform_loss}."
        )
