"""Gradual unfreezing: training starts at the top of the model and works its way down.

First only the topmost decoder layer learns, with the final norm and the output layer; then one more
layer at a time, and the embeddings last. A frozen weight has no gradient, so the optimizer leaves
it alone, weight decay included. On one process the backward pass also stops at the lowest layer
that learns, which makes the first steps cheaper. Helps keep what the lower layers know; needs steps
enough for every layer to have its time. A tied output layer counts as an embedding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import distributed

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import MASK, Gradient, Regularizer
from heldout.lm.layers import decoder_layers, depths, trained_depths

SOURCE = "Howard and Ruder 2018, arXiv 1801.06146"
COST = "less than none: backward passes are shorter until all layers learn"


def num_learning(num_groups: int, progress: float) -> int:
    """How many of ``num_groups``, from the top, learn at ``progress`` of the unfreezing, 0 to 1."""
    return 1 + int((num_groups - 1) * min(1.0, progress))


@dataclass(frozen=True)
class GradualUnfreezing(Regularizer):
    """All layers learn from the share ``share`` of all steps on.

    Or one more layer each ``steps_per_layer`` steps, where that is not 0.
    """

    AROUND: ClassVar[int] = MASK

    share: float = 0.5
    steps_per_layer: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 < self.share <= 1, "above 0 and at most 1")
        self.require("steps_per_layer", self.steps_per_layer >= 0, "0 (by share) or more")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if len(_groups(model)) < 2:
            raise UserError(
                "GradualUnfreezing: all trained weights are in the top layer, so there is nothing "
                "to unfreeze; leave it out."
            )
        if recipe is not None and recipe.train.optimizer == "schedule_free":
            raise UserError(
                "GradualUnfreezing does not go with train.optimizer=schedule_free, which counts "
                "the steps of all weights alike: use train.optimizer=adamw."
            )

    def before_step(self, model: Any, step: int) -> None:
        if step and not (self._progress or self.steps_per_layer):
            raise UserError(
                "GradualUnfreezing(share=...) needs Steps(total_steps=...), or set steps_per_layer."
            )

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        with frozen(self._frozen(model, step), skip_backward=_can_skip_backward(model)):
            return gradient()

    def _frozen(self, model: Any, step: int) -> list[torch.nn.Parameter]:
        """The trained parameters that do not learn yet."""
        groups = _groups(model)
        if self.steps_per_layer:
            num = 1 + step // self.steps_per_layer
        else:
            num = num_learning(len(groups), self._progress / self.share)
        if num >= len(groups):
            return []
        lowest = groups[num - 1]
        found = depths(model)
        return [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and found[name] < lowest
        ]


@contextmanager
def frozen(parameters: list[torch.nn.Parameter], *, skip_backward: bool) -> Iterator[None]:
    """Within this context, and right after it, the parameters have no gradient.

    ``skip_backward`` also spares the work of computing it.
    """
    try:
        for parameter in parameters:
            parameter.requires_grad_(not skip_backward)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None


def _groups(model: Any) -> list[int]:
    """Depths that start to learn one after another; what is above the layers goes with the top."""
    num_layers = len(decoder_layers(model))
    return sorted({min(depth, num_layers) for depth in trained_depths(model)}, reverse=True)


def _can_skip_backward(model: Any) -> bool:
    # DDP waits for every parameter's gradient; checkpoints may need inputs that require one.
    if distributed.is_available() and distributed.is_initialized():
        return False
    return not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
