"""L2-SP: weights are pulled toward the pretrained ones, not toward zero.

The penalty is ``rate/2 * ||w - w0||^2`` with w0 the weights before training. Decoupled, as by
default, each step also moves ``w -= learning_rate * rate * (w - w0)``, so that Adam does not
rescale the pull; the other form puts ``rate * (w - w0)`` into the gradient and the penalty into
the loss, as in the paper. It keeps what the base model knows, where weight decay would wear it
down.

On LoRA the distance to the base is the product, ``rate/2 * ||scale * B A||^2``; it is pulled to
zero without building it. So w0 is the model without the adapter, also where that was trained
before. Where the adapter began as a part of the base weights (PiSSA, OLoRA), w0 is the model with
the adapter as it began, and the pull is toward that. Anchors are taken again from the base when a
run is resumed: build the model from its base, then load the checkpoint.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import PENALTY, Cost, Gradient, Regularizer
from heldout.lm.adapters import adapter_products, base_anchors, not_in_products
from heldout.lm.weights import global_norm, place
from heldout.regularizers.l2_penalty import (
    add_to_gradients,
    product_gradients,
    refuse_other_adapters,
)

SOURCE = "Li et al. 2018, arXiv 1802.01483"
COST = "one pass over the trained weights; a copy of them, none with LoRA"


@torch.no_grad()
def pull_back(
    model: nn.Module, anchors: Mapping[str, torch.Tensor], rate: float, rates: Mapping[str, float]
) -> None:
    """``w -= learning_rate * rate * (w - w0)``; on LoRA along the gradient of the product's norm.

    ``anchors`` are w0 by name, ``rates`` the learning rates by name; a weight without one stays.
    """
    learning_rates = {id(p): rates[n] for n, p in model.named_parameters() if n in rates}
    moved = defaultdict(list)
    for name, parameter in not_in_products(model).items():
        if id(parameter) in learning_rates:
            moved[learning_rates[id(parameter)]].append((parameter, anchors[name]))
    for learning_rate, pairs in moved.items():
        # All the way at a product of 1, beyond which it would swing.
        share = min(1.0, learning_rate * rate)
        torch._foreach_lerp_([p for p, _ in pairs], [anchor for _, anchor in pairs], share)
    _, gradients = product_gradients(adapter_products(model))
    factors = defaultdict(list)
    for factor, gradient in gradients:
        if id(factor) in learning_rates:
            factors[learning_rates[id(factor)]].append((factor, gradient))
    for learning_rate, pulls in factors.items():
        length = learning_rate * rate
        torch._foreach_sub_([p for p, _ in pulls], [g for _, g in pulls], alpha=length)


@torch.no_grad()
def add_l2_sp_penalty(
    model: nn.Module, anchors: Mapping[str, torch.Tensor], rate: float
) -> torch.Tensor:
    """Add the penalty's gradient to ``parameter.grad``; returns ``rate/2 * ||w - w0||^2``.

    Call it once per optimizer step, whatever the accumulation.
    """
    half, gradients = product_gradients(adapter_products(model))
    add_to_gradients(gradients, rate)
    # One weight at a time: the difference is as large as the weight.
    for name, parameter in not_in_products(model).items():
        difference = parameter - anchors[name]
        half = half.to(parameter.device) + global_norm([difference]).square() / 2
        add_to_gradients([(parameter, difference)], rate)
    return rate * half


@dataclass(frozen=True)
class L2SP(Regularizer):
    """``rate`` of the pull toward the pretrained weights, applied after the step if ``decoupled``.

    Decoupled it is per step and unit of learning rate, like weight decay.
    """

    STRENGTH = "rate"
    AROUND = PENALTY
    NEEDS_FLOAT32 = True

    rate: float = 0.1
    decoupled: bool = True

    _anchors: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", self.rate >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(parameters=1)  # none with LoRA

    def check(self, model: Any, recipe: Recipe | None) -> None:
        refuse_other_adapters(model, "L2SP")
        rate = recipe.train.learning_rate if recipe else None
        if self.decoupled and rate is not None and rate * self.rate >= 1:
            raise UserError(
                f"L2SP(rate={self.rate}) times the learning rate {rate} must be under 1."
            )

    def prepare(self, model: Any) -> None:
        self._anchors.clear()
        self._anchors.update(base_anchors(model))

    def before_step(self, model: Any, step: int) -> None:
        place(self._anchors, model)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        loss = gradient()
        if self.decoupled or self.strength == 0:
            return loss
        return loss + add_l2_sp_penalty(model, self._anchors, self.strength).to(loss)

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        if self.decoupled and self.strength > 0:
            pull_back(model, self._anchors, self.strength, rates)
