"""SWA: the plain mean of the last part's weights, measured beside them; the better is saved.

From the share ``start`` of all steps on, after each step ``mean += (weights - mean) / n``. The
mean lies near the middle of a flat region that single steps circle around, so it works best with a
learning rate that stays up: train.schedule = constant. Until ``start`` the weights alone are
measured. Training itself is not touched; a run that stops before ``start`` has no mean.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heldout.core.errors import UserError
from heldout.core.regularizer import AVERAGE, Cost, Regularizer
from heldout.lm.averages import RunningAverages

SOURCE = "Izmailov et al. 2018, arXiv 1803.05407"
COST = "one float32 copy of the trained weights; each evaluation reads the validation part twice"


@dataclass(frozen=True)
class SWA(Regularizer):
    """``start`` is a share of all steps; 0 averages from the first step on."""

    AFTER = AVERAGE

    CONFLICTS: ClassVar = {
        "EMA": "both put an average in place of the weights; use one of them.",
        "Rollback": "the mean would hold the weights that were given up; use EarlyStopping.",
    }

    start: float = 0.75

    _averages: RunningAverages = field(
        default_factory=RunningAverages, init=False, repr=False, compare=False
    )
    _counts: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("start", 0 <= self.start < 1, "at least 0 and under 1")

    @property
    def cost(self) -> Cost:
        return Cost(averages=1)

    def prepare(self, model: Any) -> None:
        self._averages.start(model)
        self._counts["averaged"] = 0

    def before_step(self, model: Any, step: int) -> None:
        if self.start and step and not self._progress:
            raise UserError(f"SWA(start={self.start}) needs Steps(total_steps=...).")

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        if self._progress >= self.start:
            self._counts["averaged"] += 1
            self._averages.move(model, 1 / self._counts["averaged"])

    @property
    def has_average(self) -> bool:
        return bool(self._counts.get("averaged"))

    @contextmanager
    def evaluation_weights(self, model: Any) -> Iterator[None]:
        if not self.has_average:
            yield
            return
        with self._averages.put_in(model):
            yield

    def state_dict(self) -> dict[str, Any]:
        averages = self._averages.state_dict() if self._counts["averaged"] else {}
        return {"averages": averages, "averaged": self._counts["averaged"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._averages.load_state_dict(state["averages"])
        self._counts["averaged"] = state["averaged"]
