"""SAM: the gradient is taken where the loss nearby is worst, so that flat minima are found.

With g the gradient of the whole window at the weights w, the step uses the gradient at
``w + radius * g / ||g||`` instead, the norm taken over all trained weights. It helps most on few
examples, where sharp minima are easy to find; it doubles the time of a step, and one window is
one point of ascent, so accumulated micro-batches share it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from heldout.core.regularizer import ASCENT, Cost, Gradient, Regularizer
from heldout.lm.weights import global_norm, trained_parameters, weights_replaced

SOURCE = "Foret et al. 2021, arXiv 2010.01412"
COST = "twice the time of a step; one more copy of the trained weights"

# (weights, their gradients, radius, their names) -> the perturbed weights; may overwrite the
# gradients
Ascent = Callable[
    [Sequence[torch.Tensor], Sequence[torch.Tensor], float, Sequence[str]], Sequence[torch.Tensor]
]


@torch.no_grad()
def ascended(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    radius: float,
    names: Sequence[str] = (),
) -> Sequence[torch.Tensor]:
    """``w + radius * g / ||g||``: the worst point of a ball, to first order."""
    scale = radius / (float(global_norm(gradients)) + 1e-12)
    return torch._foreach_add(list(weights), list(gradients), alpha=scale)


def gradient_at_ascent(
    model: nn.Module,
    gradient: Callable[[], torch.Tensor],
    radius: float,
    ascent: Ascent = ascended,
) -> torch.Tensor:
    """Fill ``parameter.grad`` with the gradient at the perturbed weights; returns the first loss.

    ``gradient()`` adds the gradient to ``parameter.grad``, which is empty, and returns the loss.
    The weights are put back bit for bit, also on an exception.
    """
    loss = gradient()
    reached = [(n, p) for n, p in trained_parameters(model).items() if p.grad is not None]
    if not reached:
        return loss
    perturbed = _perturbed(reached, radius, ascent)
    for _, parameter in reached:
        parameter.grad = None
    with weights_replaced(model, perturbed):
        gradient()
    return loss


def _perturbed(
    reached: Sequence[tuple[str, Any]], radius: float, ascent: Ascent
) -> Mapping[str, torch.Tensor]:
    # Of its own, so that no name keeps the first gradients alive during the second window.
    names = [n for n, _ in reached]
    values = ascent([p.detach() for _, p in reached], [p.grad for _, p in reached], radius, names)
    return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class SAM(Regularizer):
    """``radius`` is the length of the ascent over all trained weights together."""

    STRENGTH = "radius"
    AROUND = ASCENT
    NEEDS_FLOAT32 = True
    CONFLICTS: ClassVar = {"ASAM": "both climb before they descend; keep one of them."}

    radius: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("radius", self.radius >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(windows=2, parameters=1)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        if self.strength == 0:
            return gradient()
        return gradient_at_ascent(model, gradient, self.strength)
