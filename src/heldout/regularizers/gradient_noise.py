"""Gradient noise: normal noise that fades is added to the gradient of each step.

At step t every weight's gradient gains ``N(0, variance / (1 + t)^decay)``. It helps very deep or
badly conditioned networks out of poor starts; on small data it is a weak regularizer.

The paper's variances of 0.01, 0.3 and 1 are for small networks. The noise's norm is
``sqrt(variance * number of weights)``: at 0.01 it is 100 for a million trained weights, against a
gradient whose norm is about 1, and after clipping hardly anything but noise is left. The default
gives 0.3 for a million weights; noise is added before clipping.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from heldout.core.regularizer import NOISE, Gradient, Regularizer
from heldout.lm.weights import random_like, seed_of, trained_parameters

SOURCE = "Neelakantan et al. 2015, arXiv 1511.06807"
COST = "one random number per trained weight"

_STREAM = 1  # regularizers of one seed draw unrelated numbers


def noise_variance(variance: float, decay: float, step: int) -> float:
    """``variance / (1 + step)^decay``, with steps counted from 0."""
    return variance / (1 + step) ** decay


@torch.no_grad()
def add_gradient_noise(
    parameters: Mapping[str, torch.Tensor], variance: float, seed: int, step: int
) -> None:
    """Add ``N(0, variance)`` to every ``parameter.grad``; the same on every process and shard."""
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            noise = random_like(parameter, seed_of(seed, step, name), normal=True)
            parameter.grad.add_(noise, alpha=variance**0.5)


@dataclass(frozen=True)
class GradientNoise(Regularizer):
    """``variance`` of the noise on each weight's gradient at the first step, and its ``decay``."""

    STRENGTH = "variance"
    AROUND = NOISE

    variance: float = 1e-7
    decay: float = 0.55
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("variance", "decay", "seed"):
            self.require(name, getattr(self, name) >= 0, "0 or more")

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        loss = gradient()
        variance = noise_variance(self.strength, self.decay, step)
        if variance > 0:
            seed = seed_of(self.seed, _STREAM)
            add_gradient_noise(trained_parameters(model), variance, seed, step)
        return loss
