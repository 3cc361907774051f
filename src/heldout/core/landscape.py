"""How the loss lies around the weights that training reached: context, never part of a verdict."""

# R draws, F points of a path

from dataclasses import dataclass

import numpy as np

from heldout.core.losses import DocumentLosses


@dataclass(frozen=True)
class LossLandscape:
    """Losses in nats/token on one sample of rows; None where not measured."""

    sharpness_draws: np.ndarray | None = None  # rise of the loss per draw of relative weight noise
    base_sharpness_draws: np.ndarray | None = None  # of the base, with the same draws
    noise_ratio: float = 0.0  # standard deviation of that noise over the size of each weight
    path_fractions: np.ndarray | None = None  # F of them, 0 base to 1 tuned
    path_train: tuple[DocumentLosses, ...] = ()  # at each of them
    path_heldout: tuple[DocumentLosses, ...] = ()
    gradient_noise_scale: float | None = None  # trace of the covariance over squared norm, tokens
    gradient_noise_interval: tuple[float, float] | None = None
    update_norms: dict[str, float] | None = None  # layer -> norm of tuned minus base over base's
