"""Child-Tuning: each step changes a part of the weights, the child network.

Mode ``free``: a fresh random mask per step keeps the share ``share`` of the gradient, divided by
``share`` so that its mean is unchanged. As in the paper the mask comes before the optimizer, so
momentum and weight decay still move all weights. Mode ``task``: the ``share`` of all weights with
the most Fisher information is chosen once; no other weight ever moves, weight decay included.

The Fisher information is the squared gradient of the window, synchronized over processes and
summed over the first ``fisher_steps`` steps, in which nothing is trained; at most a tenth of the
planned steps, and of those of a learning-rate search. It is that of whole batches, noisier than the
paper's pass over single examples. Weights without any are left out.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import MASK, PUT_BACK, Cost, Gradient, Regularizer
from heldout.lm.adapters import is_adapted
from heldout.lm.weights import (
    place_in_own_type,
    random_like,
    seed_of,
    trained_parameters,
    unsharded,
    whole,
)

SOURCE = "Xu et al. 2021, arXiv 2109.05687"
COST = "free: one random number per weight; task: a copy of the weights and a mask"

_STREAM = 4  # regularizers of one seed draw unrelated numbers


@torch.no_grad()
def mask_gradients(
    parameters: Mapping[str, torch.Tensor], share: float, seed: int, step: int
) -> None:
    """Keep a random ``share`` of every ``parameter.grad``, divided by ``share``."""
    gradients = []
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            numbers = random_like(parameter, seed_of(seed, step, name), normal=False)
            gradients.append(parameter.grad.mul_(numbers.lt_(share)))
    if gradients:
        torch._foreach_mul_(gradients, 1 / share)


def child_of(fisher: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Masks of the ``share`` of all numbers that are highest, over all tensors together.

    ``fisher`` holds float32 numbers of 0 or more. Of equal numbers at the border none is taken.
    """
    most = share * sum(scores.numel() for scores in fisher.values())
    # Floats of 0 or more are ordered like their bits: the threshold is found bit by bit.
    low, high = -1, struct.unpack("i", struct.pack("f", float("inf")))[0]
    while high - low > 1:
        middle = (low + high) // 2
        if _num_above(fisher.values(), _float_of(middle)) <= most:
            high = middle
        else:
            low = middle
    return {name: scores > _float_of(high) for name, scores in fisher.items()}


def _float_of(bits: int) -> float:
    return struct.unpack("f", struct.pack("i", bits))[0]


def _num_above(tensors: Iterable[torch.Tensor], threshold: float) -> int:
    total: Any = sum((scores > threshold).sum() for scores in tensors)
    return int(unsharded(total))


@torch.no_grad()
def put_back(
    model: nn.Module, child: Mapping[str, torch.Tensor], fixed: Mapping[str, torch.Tensor]
) -> None:
    """Set the weights outside of the child to those in ``fixed``."""
    for name, parameter in trained_parameters(model).items():
        # All or nothing of the way, hence exact; torch.where is 20 times slower on a CPU.
        parameter.lerp_(fixed[name], (~child[name]).to(parameter.dtype))


@dataclass(frozen=True)
class ChildTuning(Regularizer):
    """``share`` of the weights that learn, drawn anew each step (``free``) or chosen (``task``)."""

    AROUND = MASK
    AFTER = PUT_BACK
    CONFLICTS: ClassVar = {
        "GradualUnfreezing": "both say which weights learn; keep one of them.",
    }

    share: float = 0.3
    mode: str = "free"
    fisher_steps: int = 8
    seed: int = 0

    _fisher: dict = field(default_factory=dict, init=False, repr=False, compare=False)
    _child: dict = field(default_factory=dict, init=False, repr=False, compare=False)
    _fixed: dict = field(default_factory=dict, init=False, repr=False, compare=False)
    _search: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 < self.share <= 1, "above 0 and at most 1")
        self.require("mode", self.mode in ("free", "task"), "free or task")
        self.require("fisher_steps", self.fisher_steps >= 1, "1 or more")
        self.require("seed", self.seed >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(parameters=1.25 if self.mode == "task" else 0)

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if self.mode == "task" and is_adapted(model):
            raise UserError(
                "ChildTuning(mode='task') would freeze every LoRA A, which has no gradient while "
                "its B is 0: use mode = free, or train with model.method = full."
            )

        if recipe is not None:
            search = recipe.search
            self._search.update(
                share=(search.epochs or math.inf) / recipe.train.max_epochs,
                most=search.max_steps,
            )

    def prepare(self, model: Any) -> None:
        for kept in (self._fisher, self._child, self._fixed):
            kept.clear()

    def before_step(self, model: Any, step: int) -> None:
        place_in_own_type(self._fisher, model)
        place_in_own_type(self._child, model)
        if self._fisher and step >= self._num_fisher_steps(step):
            self._child.update(child_of(self._fisher, self.share))
            self._fisher.clear()
        if self._child and not self._fixed:  # just chosen, or resumed: the others have not moved
            self._fix(model)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        loss = gradient()
        parameters = trained_parameters(model)
        if self.share == 1:
            return loss
        if self.mode == "free":
            mask_gradients(parameters, self.share, seed_of(self.seed, _STREAM), step)
        elif not self._child:
            self._measure(parameters)
        else:
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._child[name])
        return loss

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        if self._child:
            put_back(model, self._child, self._fixed)

    def state_dict(self) -> dict[str, Any]:
        state = {"fisher": whole(self._fisher), "child": whole(self._child)}
        return {name: tensors for name, tensors in state.items() if tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._fisher.update(state.get("fisher", {}))
        self._child.update(state.get("child", {}))

    def _num_fisher_steps(self, step: int) -> int:
        if not self._progress:  # how many steps there will be is not known
            return self.fisher_steps
        planned = step / self._progress
        shortest = planned * min(1.0, self._search.get("share", 1.0))
        shortest = min(shortest, self._search.get("most", shortest))
        return min(self.fisher_steps, max(1, round(shortest) // 10))

    @torch.no_grad()
    def _measure(self, parameters: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in parameters.items():
            if name not in self._fisher:
                self._fisher[name] = torch.zeros_like(parameter, dtype=torch.float32)
            if parameter.grad is not None:
                self._fisher[name].add_(parameter.grad.float().square())
                # Without a gradient the optimizer leaves a weight alone, decay included.
                parameter.grad = None

    def _fix(self, model: Any) -> None:
        parameters = trained_parameters(model)
        self._fixed.update({name: p.detach().clone() for name, p in parameters.items()})
