"""EMA: an exponential moving average of the weights, measured beside them; the better is saved.

After each optimizer step ``average = d * average + (1 - d) * weights``, where d rises to ``decay``
as min(decay, (1 + t) / (10 + t)) with the steps t, so that the random start fades soon. Training
itself is not touched. The average has less of the noise of single steps and lags behind by about
1 / (1 - decay) steps: with few steps in all, take a smaller decay. That ramp looks back over t / 9
steps at most, whatever ``decay``. With a ``horizon``, in epochs, the average is the plain mean of
all weights so far until that many steps are done, and looks back over as many from then on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import AVERAGE, Cost, Regularizer
from heldout.lm.averages import RunningAverages

SOURCE = "Polyak and Juditsky 1992, SIAM J. Control Optim. 30"
COST = "one float32 copy of the trained weights; each evaluation reads the validation part twice"
ALTERNATIVES = ("decay", "horizon")  # a setting of one takes the place of a recipe's other


def ema_decay(decay: float, step: int) -> float:
    """The decay used after optimizer step ``step``, counted from 0."""
    return min(decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class EMA(Regularizer):
    """``decay`` is the share of the old average that a step keeps; ``horizon`` stands in for it.

    ``horizon``: epochs that the average looks back over; 0: as ``decay`` has it.
    """

    AFTER = AVERAGE

    CONFLICTS: ClassVar = {
        "SWA": "both put an average in place of the weights; use one of them.",
        "Rollback": "the average goes on from the weights that were given up; use EarlyStopping.",
    }

    decay: float = 0.999
    horizon: float = 0.0

    _epochs: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _averages: RunningAverages = field(
        default_factory=RunningAverages, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("decay", 0 <= self.decay < 1, "at least 0 and under 1")
        self.require("horizon", self.horizon >= 0, "0 (by decay) or more epochs")
        if self.horizon and self.decay != type(self).decay:
            raise UserError(
                f"EMA(decay={self.decay:g}, horizon={self.horizon:g}) says twice how far it looks "
                "back: give one of them."
            )

    @property
    def cost(self) -> Cost:
        return Cost(averages=1)

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if self.horizon and recipe is None:
            raise UserError(
                f"EMA(horizon={self.horizon:g}) counts in epochs, which a recipe tells: give "
                "decay, or run by a recipe."
            )
        if recipe is not None:
            self._epochs["planned"] = recipe.train.max_epochs

    def prepare(self, model: Any) -> None:
        self._averages.start(model)

    def before_step(self, model: Any, step: int) -> None:
        if self.horizon and step and not self._progress:
            raise UserError(f"EMA(horizon={self.horizon:g}) needs Steps(total_steps=...).")

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        self._averages.move(model, self._share(step))

    def _share(self, step: int) -> float:
        """What the weights after optimizer step ``step``, counted from 0, add to the average."""
        if not self.horizon:
            return 1 - ema_decay(self.decay, step)
        if not step:
            return 1.0
        per_epoch = step / self._progress / self._epochs["planned"]
        return min(1.0, max(1 / (step + 1), 1 / (self.horizon * per_epoch)))

    @property
    def has_average(self) -> bool:
        return self._averages.have_started

    @contextmanager
    def evaluation_weights(self, model: Any) -> Iterator[None]:
        if not self.has_average:
            yield
            return
        with self._averages.put_in(model):
            yield

    def state_dict(self) -> dict[str, Any]:
        return self._averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._averages.load_state_dict(state)
