"""What a scaling law is: named parameters, a loss, its gradient, and how it is linear.

All numbers are natural (nats, parameters, tokens); ``values`` are a law's parameters in the order
of ``PARAMETERS``, with any leading dimensions, so that thousands of fits run as one array.
"""

# S sets of values, n runs, P parameters of the law, K of them linear coefficients

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from heldout.core.errors import UserError, did_you_mean
from heldout.scaling.runs import Numbers, Runs

HUGE = 80.0  # exponents of e are kept below this: a start far off must not overflow


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law: its unit, its meaning, its domain, and where a fit looks first.

    Coefficients (``scan`` empty) enter linearly and are solved for; the others are scanned over
    ``scan`` (a floor in shares of the lowest loss) and then polished over the whole domain from
    ``low`` to ``high``. A parameter that is ``relative`` is searched on a logarithmic scale.
    """

    name: str
    unit: str
    meaning: str
    low: float
    high: float
    scan: tuple[float, float] | tuple[()] = ()
    relative: bool = True


def coefficient(name: str, unit: str, meaning: str) -> Parameter:
    """A parameter that enters the loss linearly and is solved for."""
    return Parameter(name, unit, meaning, 1e-6, 1e30)


def exponent(
    name: str, meaning: str, scan: tuple[float, float] = (0.05, 1.2), low: float = 0.0
) -> Parameter:
    """A power without a unit: scanned over ``scan``, then polished from ``low`` to 4."""
    return Parameter(name, "none", meaning, low, 4.0, scan, relative=False)


class Law(ABC):
    """A formula for the loss from N parameters, D tokens seen and U unique tokens."""

    PARAMETERS: ClassVar[tuple[Parameter, ...]]
    FORMULA: ClassVar[str]
    KNOWS_REPETITION: ClassVar[bool] = False
    SHOWS_OVERFITTING: ClassVar[bool] = False
    RISES_WITH_EPOCHS: ClassVar[bool] = False  # the loss can go up as the same tokens are repeated
    DEPENDS_ON: ClassVar[tuple[str, ...]] = ("N", "D")  # of which the runs must have two values
    NUM_PASSES: ClassVar[int] = 1  # of the linear solve, where its basis depends on its result

    @abstractmethod
    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        """Predicted loss of each run, (..., n)."""

    @abstractmethod
    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        """Derivative of the loss to each parameter, (..., n, P)."""

    def loss_and_gradient(self, runs: Runs, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both at once; a law that shares work between them overrides this."""
        return self.loss(runs, values), self.gradient(runs, values)

    def linear_form(
        self, runs: Runs, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Basis (..., n, K), target and weight (..., n) of the coefficients' least squares.

        Weighted so that a residual is about one of the logarithm of the loss. Coefficients in
        ``values`` have no say unless the law says so.
        """
        basis = self.gradient(runs, values)[..., self.linear]
        target = np.broadcast_to(runs.loss, basis.shape[:-1])
        return basis, target, np.broadcast_to(1 / runs.loss, basis.shape[:-1])

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self.PARAMETERS]

    @property
    def linear(self) -> list[int]:
        return [index for index, each in enumerate(self.PARAMETERS) if not each.scan]

    def values(self, parameters: Mapping[str, float]) -> np.ndarray:
        """Parameters by name as an array in the law's order."""
        for name in parameters:
            if name not in self.names:
                raise UserError(
                    f"Unknown parameter {name!r} of the law {self.name}"
                    f"{did_you_mean(name, self.names)}"
                )
        missing = [name for name in self.names if name not in parameters]
        if missing:
            raise UserError(f"The law {self.name} also needs {', '.join(missing)}.")
        return np.array([float(parameters[name]) for name in self.names])

    def predict(self, runs: Runs, parameters: Mapping[str, float]) -> np.ndarray:
        """Loss of each run from parameters by name."""
        return self.loss(runs, self.values(parameters))


def unpack(values: np.ndarray) -> list[np.ndarray]:
    """The parameters one by one, each (..., 1), so that they broadcast over runs."""
    return [values[..., index, None] for index in range(values.shape[-1])]


def power(log_base: Numbers, exponent: Numbers) -> np.ndarray:
    """``base ** exponent`` from the logarithm of the base, which may be -inf; never overflows."""
    with np.errstate(invalid="ignore"):
        product = exponent * log_base
    # 0 ** 0: what was not repeated adds no penalty, whatever the exponent.
    product = np.where(np.isneginf(log_base), -np.inf, product)
    return np.exp(np.minimum(product, HUGE))
