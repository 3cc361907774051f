"""The loss of one model over its training data: a floor and one power law.

L = E + B / D^beta with D the tokens of the training data, each run at its own best epoch. The floor
is known only where the runs come near it, so a forecast far beyond them has a wide interval.
"""

# G exponents of a grid, R resamples, n runs

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from heldout.scaling.fit import Fit, fit
from heldout.scaling.law import Law, coefficient, exponent, power, unpack
from heldout.scaling.runs import Runs

DELTA = 0.02  # of log losses: runs of one recipe have no outliers to speak of
NUM_STARTS = 3  # one exponent is scanned: the grid alone is nearly the optimum
BETAS = np.geomspace(0.02, 3.0, 160)


@dataclass(frozen=True)
class LearningCurveLaw(Law):
    """L = E + B / D^beta."""

    PARAMETERS = (
        coefficient("E", "loss", "the floor: loss with unlimited data"),
        coefficient("B", "loss * tokens^beta", "what little data costs"),
        exponent("beta", "how fast more data help", (0.05, 1.5)),
    )
    FORMULA = "L = E + B/D^beta"
    DEPENDS_ON = ("D",)

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        E, B, beta = unpack(values)
        return E + B * power(np.log(runs.D), -beta)

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        _, B, beta = unpack(values)
        log_D = np.log(runs.D)
        per_B = power(log_D, -beta)
        return np.stack([np.ones_like(per_B), per_B, -B * per_B * log_D], axis=-1)


def fit_curve(D: ArrayLike, loss: ArrayLike) -> Fit:
    """The curve through runs of ``D`` tokens with these losses, each (n,); four runs at least."""
    D = np.asarray(D, np.float64)
    runs = Runs.of(np.ones_like(D), D, loss)
    return fit(LearningCurveLaw(), runs, delta=DELTA, num_starts=NUM_STARTS)


def refit_curve(D: ArrayLike, losses: np.ndarray) -> np.ndarray:
    """Parameters (R, 3) of the curves through resampled losses (R, n); 1,000 take some 0.1 s.

    For every exponent of a grid, E and B by least squares of the relative error, neither below
    zero; the best exponent of the grid stands, which is near enough for an interval.
    """
    log_D = np.log(np.asarray(D, np.float64))
    per_B_GRn = np.exp(-BETAS[:, None, None] * log_D) / losses
    per_E_Rn = 1 / losses
    EE, EB, BB = (per_E_Rn**2).sum(-1), (per_E_Rn * per_B_GRn).sum(-1), (per_B_GRn**2).sum(-1)
    right_E, right_B = per_E_Rn.sum(-1), per_B_GRn.sum(-1)
    determinant = np.maximum(EE * BB - EB**2, 1e-300)
    E = (BB * right_E - EB * right_B) / determinant
    B = (EE * right_B - EB * right_E) / determinant
    E, B = (
        np.where(B < 0, right_E / EE, np.maximum(E, 0)),
        np.where(E < 0, right_B / BB, np.maximum(B, 0)),
    )
    error_GR = ((E[..., None] * per_E_Rn + B[..., None] * per_B_GRn - 1) ** 2).sum(-1)
    best_R = error_GR.argmin(0)
    every_R = np.arange(len(losses))
    return np.stack([E[best_R, every_R], B[best_R, every_R], BETAS[best_R]], axis=-1)


def curve_loss(D: float, values: np.ndarray) -> np.ndarray:
    """Loss at ``D`` tokens of one curve (3,) or of several (R, 3)."""
    return values[..., 0] + values[..., 1] * D ** -values[..., 2]
