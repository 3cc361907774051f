"""ASAM: SAM in a neighborhood that scales with each weight, so that rescaling changes nothing.

With T = |w| + eta for each weight and g the gradient, the step uses the gradient at
``w + radius * T^2 g / ||T g||``. Large weights may move further than small ones, so the radius
means the same for layers of any scale: 0.5 to 2 in the paper. Biases have T = 1, as in the authors'
code. It doubles the time of a step.

The adaptive mode of common SAM optimizers has no eta, so weights that are exactly 0 (a fresh LoRA
B, for one) are never perturbed there; with ``eta=0`` the two agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from heldout.core.regularizer import ASCENT, Cost, Gradient, Regularizer
from heldout.lm.weights import global_norm
from heldout.regularizers.sam import gradient_at_ascent

SOURCE = "Kwon et al. 2021, arXiv 2102.11600"
COST = "twice the time of a step; one more copy of the trained weights"


@torch.no_grad()
def adaptively_ascended(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    radius: float,
    names: Sequence[str] = (),
    eta: float = 0.01,
) -> Sequence[torch.Tensor]:
    """``w + radius * T^2 g / ||T g||`` with T = |w| + eta, and 1 for biases by their names.

    Overwrites the gradients.
    """
    weights, gradients = list(weights), list(gradients)
    scales = torch._foreach_abs(weights)
    torch._foreach_add_(scales, eta)
    for name, scale in zip(names, scales, strict=False):  # names may be left out
        if name.endswith("bias"):
            scale.fill_(1)
    torch._foreach_mul_(gradients, scales)
    length = radius / (float(global_norm(gradients)) + 1e-12)
    torch._foreach_mul_(gradients, scales)
    del scales  # before the perturbed weights need as much
    return torch._foreach_add(weights, gradients, alpha=length)


@dataclass(frozen=True)
class ASAM(Regularizer):
    """``radius`` is the length of the ascent, measured in units of each weight's size + ``eta``."""

    STRENGTH = "radius"
    AROUND = ASCENT
    NEEDS_FLOAT32 = True
    CONFLICTS: ClassVar = {"SAM": "both climb before they descend; keep one of them."}

    radius: float = 2.0
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("radius", "eta"):
            self.require(name, getattr(self, name) >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(windows=2, parameters=1)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        if self.strength == 0:
            return gradient()
        ascent = partial(adaptively_ascended, eta=self.eta)
        return gradient_at_ascent(model, gradient, self.strength, ascent)
