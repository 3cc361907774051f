"""How the loss lies around the weights that training reached: context, never part of a verdict."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Landscape:
    """Losses in nats/token on one sample of training windows; None where not measured."""

    sharpness_draws: np.ndarray | None = None  # rise of the loss per draw of relative weight noise
    noise_ratio: float = 0.0  # standard deviation of that noise over the size of each weight
    path_fractions: np.ndarray | None = None  # 0 base to 1 tuned
    path_train_nll: np.ndarray | None = None
    path_heldout_nll: np.ndarray | None = None
    gradient_noise_scale: float | None = None  # trace of the covariance over squared norm, tokens
    gradient_noise_interval: tuple[float, float] | None = None
    update_norms: dict[str, float] | None = None  # layer -> norm of tuned minus base over base's
    top_eigenvalue: float | None = None
