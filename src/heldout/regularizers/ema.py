"""EMA: an exponential moving average of the weights is what is measured and saved.

After each optimizer step ``average = d * average + (1 - d) * weights``, where d rises to ``decay``
as min(decay, (1 + t) / (10 + t)) with the steps t, so that the random start fades soon. Training
itself is not touched. The average has less of the noise of single steps and lags behind by about
1 / (1 - decay) steps: with few steps in all, take a smaller decay.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heldout.core.regularizer import AVERAGE, Cost, Regularizer
from heldout.lm.averages import RunningAverages

SOURCE = "Polyak and Juditsky 1992, SIAM J. Control Optim. 30"
COST = "one float32 copy of the trained weights; no step takes longer to speak of"


def ema_decay(decay: float, step: int) -> float:
    """The decay used after optimizer step ``step``, counted from 0."""
    return min(decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class EMA(Regularizer):
    """``decay`` is the share of the old average that a step keeps."""

    AFTER = AVERAGE

    CONFLICTS: ClassVar = {
        "SWA": "both put an average in place of the weights; use one of them.",
        "Rollback": "the average goes on from the weights that were given up; use EarlyStopping.",
    }

    decay: float = 0.999

    _averages: RunningAverages = field(
        default_factory=RunningAverages, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("decay", 0 <= self.decay < 1, "at least 0 and under 1")

    @property
    def cost(self) -> Cost:
        return Cost(averages=1)

    def prepare(self, model: Any) -> None:
        self._averages.start(model)

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        self._averages.move(model, 1 - ema_decay(self.decay, step))

    @contextmanager
    def evaluation_weights(self, model: Any) -> Iterator[None]:
        if not self._averages.have_started:  # measured before training
            yield
            return
        with self._averages.put_in(model):
            yield

    def state_dict(self) -> dict[str, Any]:
        return self._averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._averages.load_state_dict(state)
