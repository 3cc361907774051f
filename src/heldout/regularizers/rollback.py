"""Rollback: after a rise of the held-out loss, train on from the best weights at a lower rate.

After ``patience`` evaluations without a new low, the weights of the lowest held-out loss come back,
the optimizer's moments are forgotten, and the learning rate is multiplied by ``rate_factor``. After
``max_rollbacks`` of these the next such rise ends training. Helps where the learning rate was too
high for what is left to learn; each rollback is one more choice made on the same held-out rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import (
    Continue,
    Decision,
    Evaluation,
    Regularizer,
    RollBack,
    Stop,
)

SOURCE = "Prechelt 1998, Early stopping - but when?"
COST = "one evaluation pass each time; no step costs more"


@dataclass(frozen=True)
class Rollback(Regularizer):
    """``patience`` counts evaluations; ``min_delta`` is in nats per token."""

    CONFLICTS: ClassVar = {"EarlyStopping": "Rollback stops by itself, after max_rollbacks."}
    NEEDS_VALIDATION: ClassVar[bool] = True

    patience: int = 2
    rate_factor: float = 0.5
    max_rollbacks: int = 3
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("patience", self.patience >= 1, "1 or more")
        self.require("rate_factor", 0 < self.rate_factor <= 1, "above 0 and at most 1")
        if self.max_rollbacks < 1:
            raise UserError(
                f"Rollback(max_rollbacks=...) must be 1 or more, got {self.max_rollbacks}: to stop "
                "without rolling back, use EarlyStopping."
            )
        self.require("min_delta", self.min_delta >= 0, "0 or more")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if recipe is not None and recipe.train.optimizer == "schedule_free":
            raise UserError(
                "Rollback lowers the learning rate, which train.optimizer=schedule_free has no "
                "use for: use EarlyStopping, or train.optimizer=adamw."
            )

    def decide(self, history: Sequence[Evaluation]) -> Decision:
        reference = history[0].validation.nats_per_token
        since = rollbacks = 0
        decision: Decision = Continue()
        for evaluation in history[1:]:
            loss = evaluation.validation.nats_per_token
            decision = Continue()
            if loss < reference - self.min_delta:
                reference, since = loss, 0
                continue
            since += 1
            if since < self.patience:
                continue
            rise = f"no new low of the held-out loss in {self.patience} evaluations"
            if rollbacks == self.max_rollbacks:
                return Stop(f"{rise} after {rollbacks} rollbacks")
            rollbacks, since = rollbacks + 1, 0
            decision = RollBack(self.rate_factor, rise)
        return decision
