"""Bregman proximal point: predictions stay close to those of the model's own recent past.

``weight * (KL(p || p_old) + KL(p_old || p))`` is added for each scored token, with p_old what an
average of past weights predicts: ``average = momentum * average + (1 - momentum) * weights`` after
each step, starting at the weights before training. It is the half of SMART that keeps each update
small; as a trust region that moves along, it slows the loss of what was learned before. Both
passes see the same dropout masks, so that at the start nothing is added.

The paper takes 0.99 in the first tenth of training and 0.999 afterwards; with few steps keep 0.99.
Its weight of 1 is for long trainings: with few steps it holds a model near its start, so the
default is 0.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heldout.core.regularizer import AVERAGE, Cost, Regularizer, TokenSum
from heldout.lm.averages import RunningAverages
from heldout.lm.passes import DivergenceLoss, Passes

SOURCE = "Jiang et al. 2020, arXiv 1911.03437"
COST = "one more forward; a float32 copy of the trained weights"


@dataclass(frozen=True)
class BregmanProximalPoint(Regularizer):
    """``weight`` of the divergence; ``momentum`` is the share of the old average that stays."""

    AFTER = AVERAGE
    STRENGTH = "weight"
    CONFLICTS: ClassVar = {
        "Rollback": "the average goes on from the weights that were given up; use EarlyStopping.",
    }

    weight: float = 0.1
    momentum: float = 0.99

    _averages: RunningAverages = field(
        default_factory=RunningAverages, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("weight", self.weight >= 0, "0 or more")
        self.require("momentum", 0 <= self.momentum < 1, "at least 0 and under 1")

    @property
    def cost(self) -> Cost:
        return Cost(forwards=1, averages=1)

    def prepare(self, model: Any) -> None:
        self._averages.start(model)

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> DivergenceLoss | TokenSum:
        if self.strength == 0:
            return passes.nothing()
        old = passes.again(weights=self._averages.placed(passes.model), same_dropout=True)
        return DivergenceLoss(old, "symmetric", self.strength)

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        self._averages.move(model, 1 - self.momentum)

    def state_dict(self) -> dict[str, Any]:
        return self._averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._averages.load_state_dict(state)
