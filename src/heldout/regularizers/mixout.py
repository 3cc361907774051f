"""Mixout: in each step a random share of the weights is put back to the pretrained ones.

With a mask of 1 for a share of the weights, the gradient is taken at
``(mask w0 + (1 - mask) w - share w0) / (1 - share)``, whose expectation is w, and flows to w
through that formula: multiplied by ``(1 - mask) / (1 - share)``. It holds a full fine-tuning near
its base on very few examples. The paper mixes shares of 0.7 to 0.9; the default is milder, because
a high share slows learning.

One mask serves a whole optimizer step, so accumulated micro-batches and processes agree; all
trained weights are mixed. Anchors are taken again from the base when a run is resumed: build the
model from its base, then load the checkpoint. With LoRA there is no pretrained factor to mix in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import WEIGHTS, Cost, Gradient, Regularizer
from heldout.lm.adapters import is_adapted
from heldout.lm.weights import (
    copies,
    place,
    random_like,
    seed_of,
    trained_parameters,
    weights_replaced,
)

SOURCE = "Lee et al. 2020, arXiv 1909.11299"
COST = "one random number per weight; two more copies of the weights"

_STREAM = 3  # regularizers of one seed draw unrelated numbers


@torch.no_grad()
def mixed(
    weight: torch.Tensor, anchor: torch.Tensor, kept: torch.Tensor, share: float
) -> torch.Tensor:
    """The paper's mixture, ``kept`` being 1 - mask: ``w0 + kept * (w - w0) / (1 - share)``."""
    difference = (weight - anchor).mul_(kept)
    return torch.add(anchor, difference, alpha=1 / (1 - share))


def gradient_at_mixture(
    model: nn.Module,
    anchors: Mapping[str, torch.Tensor],
    gradient: Callable[[], torch.Tensor],
    share: float,
    seed: int,
    step: int,
) -> torch.Tensor:
    """Fill ``parameter.grad`` with the gradient of the loss at mixed weights; returns that loss.

    ``gradient()`` adds the gradient to ``parameter.grad``, which is empty, and returns the loss.
    The weights are put back bit for bit, also on an exception.
    """
    parameters = trained_parameters(model)
    kept, mixture = {}, {}
    for name, parameter in parameters.items():
        numbers = random_like(parameter, seed_of(seed, step, name), normal=False)
        # As numbers for the product, four times faster on a CPU; kept as bytes.
        factors = numbers.ge_(share)
        mixture[name] = mixed(parameter.detach(), anchors[name], factors, share)
        kept[name] = factors.bool()
    with weights_replaced(model, mixture):
        loss = gradient()
    gradients = []
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            gradients.append(parameter.grad.mul_(kept[name]))
    if gradients:
        torch._foreach_mul_(gradients, 1 / (1 - share))
    return loss


@dataclass(frozen=True)
class Mixout(Regularizer):
    """``share`` of the weights that are the pretrained ones in a step."""

    STRENGTH = "share"
    AROUND = WEIGHTS

    share: float = 0.5
    seed: int = 0

    _anchors: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share < 1, "at least 0 and under 1")
        self.require("seed", self.seed >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(parameters=2.25)  # anchors, mixture and a mask of bytes

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if is_adapted(model):
            raise UserError(
                "Mixout mixes in pretrained weights, which adapters do not have: use "
                "dropout.adapter, or train with model.method = full."
            )

    def prepare(self, model: Any) -> None:
        self._anchors.clear()
        self._anchors.update(copies(trained_parameters(model)))

    def before_step(self, model: Any, step: int) -> None:
        place(self._anchors, model)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        if self.strength == 0:
            return gradient()
        seed = seed_of(self.seed, _STREAM)
        return gradient_at_mixture(model, self._anchors, gradient, self.strength, seed, step)
