"""KL to base: predictions stay close to those of the model before training.

``weight * KL(base || model)`` is added for each scored token: the base's whole distribution is a
soft target, as in learning without forgetting, so whatever the base holds possible must stay
possible. ``reverse=True`` takes ``KL(model || base)``, the penalty of reinforcement learning from
feedback, which lets the model give up alternatives and only forbids what the base would not say.

The base is the model without its adapter, also where that was trained before, with copies of all
other trained weights from before training; an adapter that began as a part of the base weights
(PiSSA, OLoRA) is put back to its beginning instead. The base predicts without dropout and without
gradient. It keeps old skills only on texts like those trained on: for others mix some of their
kind into the data. The copy is taken again from the base when a run is resumed: build the model
from its base, then load the checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heldout.core.regularizer import Cost, Regularizer, TokenSum
from heldout.lm.adapters import base_anchors
from heldout.lm.passes import DivergenceLoss, Passes, ScoredPass
from heldout.lm.weights import place

SOURCE = "Li and Hoiem 2016, arXiv 1606.09282"
COST = "one more forward; a copy of the trained weights, none of LoRA factors"


def distance_from_base(base: ScoredPass, weight: float, *, reverse: bool = False) -> DivergenceLoss:
    """What ``joint_loss`` of the model's pass takes: KL(base || model), or KL(model || base)."""
    return DivergenceLoss(base.detached(), "forward" if reverse else "reverse", weight)


@dataclass(frozen=True)
class KLToBase(Regularizer):
    """``weight`` of the divergence; ``reverse`` turns it to KL(model || base)."""

    STRENGTH = "weight"

    weight: float = 0.1
    reverse: bool = False

    _anchors: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("weight", self.weight >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(forwards=1, parameters=1)  # none of LoRA factors

    def prepare(self, model: Any) -> None:
        self._anchors.clear()
        self._anchors.update(base_anchors(model))

    def before_step(self, model: Any, step: int) -> None:
        place(self._anchors, model)

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> DivergenceLoss | TokenSum:
        if self.strength == 0:
            return passes.nothing()
        base = passes.of_base(self._anchors)
        return distance_from_base(base, self.strength, reverse=self.reverse)
