"""The loss of a law over model sizes and training lengths, for lines of equal loss."""

import math

import numpy as np

from heldout.scaling.law import Law
from heldout.scaling.optimum import trained


def loss_grid(
    law: Law, values: np.ndarray, N: np.ndarray, D: np.ndarray, U: float = math.inf
) -> np.ndarray:
    """Losses (len(D), len(N)) of trainings on ``U`` unique tokens, by default all of them new."""
    runs = trained(np.tile(N, len(D)), np.repeat(D, len(N)), U)
    return law.loss(runs, values).reshape(len(D), len(N))
