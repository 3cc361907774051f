"""What laws share whose excess loss saturates at a uniform guess over the vocabulary.

L = E + (L0 - E) h / (1 + h): the loss stays between the floor E and L0, the loss of a uniform
guess, whatever the excess h is that the law gives for N, D and U.
"""

# n runs, P parameters of the law: E and P - 1 of h

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from heldout.core.errors import UserError
from heldout.scaling.law import Law, unpack
from heldout.scaling.runs import Numbers, Runs

GPT2_UNIFORM_LOSS = float(np.log(50_257))


def saturated(h: np.ndarray, E: Numbers, uniform_loss: float) -> np.ndarray:
    """E + (L0 - E) h / (1 + h)."""
    return E + (uniform_loss - E) * (h / (1 + h))


def saturated_gradient(
    h: np.ndarray, per_parameter: np.ndarray, E: Numbers, uniform_loss: float
) -> np.ndarray:
    """Derivatives to E and to the parameters of h, from h and its derivatives (..., n, P - 1)."""
    per_h = (uniform_loss - E) / (1 + h) ** 2
    per_E = np.broadcast_to(1 / (1 + h), per_h.shape)
    return np.concatenate([per_E[..., None], per_h[..., None] * per_parameter], axis=-1)


def saturated_target(
    loss: np.ndarray, E: Numbers, uniform_loss: float
) -> tuple[np.ndarray, np.ndarray]:
    """The h that gives a loss, and the weight that makes its error one of the log loss."""
    share = np.clip((loss - E) / (uniform_loss - E), 1e-3, 0.98)
    h = share / (1 - share)
    return h, (uniform_loss - E) / (1 + h) ** 2 / loss


@dataclass(frozen=True)
class SaturatingLaw(Law):
    """E is the first of ``PARAMETERS``; then come the coefficients of h, then its exponents."""

    uniform_loss: float = GPT2_UNIFORM_LOSS

    def __post_init__(self) -> None:
        if not self.uniform_loss > 0:
            raise UserError(
                f"{type(self).__name__}(uniform_loss=...) must be positive, the loss of a uniform "
                f"guess over the vocabulary, got {self.uniform_loss}."
            )

    @abstractmethod
    def excess(self, runs: Runs, *parameters: np.ndarray) -> np.ndarray:
        """h of each run, (..., n), from all parameters but E."""

    @abstractmethod
    def excess_gradient(self, runs: Runs, *parameters: np.ndarray) -> np.ndarray:
        """Derivatives of h to the same, (..., n, P - 1)."""

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        E, *rest = unpack(values)
        return saturated(self.excess(runs, *rest), E, self.uniform_loss)

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        E, *rest = unpack(values)
        h, per_parameter = self.excess(runs, *rest), self.excess_gradient(runs, *rest)
        return saturated_gradient(h, per_parameter, E, self.uniform_loss)

    def linear_form(
        self, runs: Runs, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        E, *rest = unpack(values)
        basis = self.excess_gradient(runs, *rest)[..., : len(self.linear)]
        return basis, *saturated_target(runs.loss, E, self.uniform_loss)
