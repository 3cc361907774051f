"""Hybrid: Lovelace's penalty for repetition, saturating at a uniform guess as Practical does.

L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + P R^delta (N/U)^kappa with
R = max(D/U - 1, 0) repetitions. It shows overfitting as the epochs grow, and levels off at the loss
L0 of a uniform guess, as real runs do.
"""

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import Parameter, coefficient, exponent
from heldout.scaling.lovelace import LovelaceParameters, lovelace_gradient, lovelace_loss
from heldout.scaling.runs import Runs
from heldout.scaling.saturating import SaturatingLaw

SOURCE = "heldout, from arXiv 2605.01640 and arXiv 2605.09189"
COST = "8 parameters from N, D and U, and the loss of a uniform guess"


@dataclass(frozen=True)
class Hybrid(SaturatingLaw):
    """L = E + (L0 - E) h / (1 + h), h = a / N^alpha + b / D^beta + P R^delta (N/U)^kappa."""

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

    def excess(self, runs: Runs, *parameters: np.ndarray) -> np.ndarray:
        return lovelace_loss(runs.N, runs.D, runs.U, LovelaceParameters(0.0, *parameters))

    def excess_gradient(self, runs: Runs, *parameters: np.ndarray) -> np.ndarray:
        at = LovelaceParameters(0.0, *parameters)
        return lovelace_gradient(runs.N, runs.D, runs.U, at)[..., 1:]
