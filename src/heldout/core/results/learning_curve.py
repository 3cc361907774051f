"""A learning curve, typed: held-out loss over training data, and what more of it would bring."""

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from heldout.core.measurement import Interval
from heldout.core.shown import Shown

SCHEMA = "heldout.learning_curve/1"


@dataclass(frozen=True)
class CurvePoint:
    """One training: on how much, and the held-out loss at its own best epoch."""

    fraction: float
    seed: int
    num_rows: int
    num_tokens: int  # scored tokens, each counted once
    nats_per_token: float
    best_epoch: float
    last_epoch: float
    num_evaluations: int


@dataclass(frozen=True)
class Forecast:
    """The curve at ``factor`` times all the data, and how far below the curve at all of it.

    ``gain`` is in nats per token, positive where more data lowers the loss.
    """

    factor: float
    num_tokens: float
    nats_per_token: float
    interval: Interval
    gain: float
    gain_interval: Interval


@dataclass(frozen=True)
class LearningCurve(Shown):
    """Points, the power law L = E + B / D^beta through them, and its forecasts.

    ``backtest_percent`` is by how much the curve through the smaller sizes missed the largest
    one; None where too few sizes are left. ``answer`` says whether twice the data would lower the
    loss by more than ``min_effect``.
    """

    points: tuple[CurvePoint, ...]
    num_heldout_rows: int
    num_groups: int
    base_nats_per_token: float
    E: float
    B: float
    beta: float
    forecasts: tuple[Forecast, ...]
    backtest_percent: float | None
    min_effect: float
    answer: Literal["yes", "no", "unclear"]
    sentence: str
    notes: tuple[str, ...]

    def table_rows(self) -> Iterable[Any]:
        """The trainings, by size and seed."""
        return self.points

    def at(self, num_tokens: float) -> float:
        """The curve's loss in nats per token."""
        return self.E + self.B / num_tokens**self.beta

    def forecast(self, factor: float) -> Forecast:
        """The forecast for that multiple of the data; KeyError where none was made."""
        for each in self.forecasts:
            if each.factor == factor:
                return each
        raise KeyError(factor)

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.learning_curve/1``."""
        return {"schema": SCHEMA, **asdict(self)}


def learning_curve_from_json(entry: dict[str, Any]) -> LearningCurve:
    """Inverse of ``to_json``."""
    entry = {key: value for key, value in copy.deepcopy(entry).items() if key != "schema"}
    points = tuple(CurvePoint(**point) for point in entry.pop("points"))
    forecasts = []
    for forecast in entry.pop("forecasts"):
        forecast["interval"] = Interval.from_json(forecast["interval"])
        forecast["gain_interval"] = Interval.from_json(forecast["gain_interval"])
        forecasts.append(Forecast(**forecast))
    return LearningCurve(
        points=points, forecasts=tuple(forecasts), **{**entry, "notes": tuple(entry["notes"])}
    )
