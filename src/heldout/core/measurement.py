"""A number with what it was measured on, its interval, and its difference to a control."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Interval:
    """Two-sided interval around an estimate, in the estimate's unit."""

    low: float
    high: float
    level: float = 0.95
    method: str = "bootstrap-t over groups"

    def __post_init__(self) -> None:
        _refuse_nan("interval", self.low, self.high)
        if self.low > self.high:
            raise ValueError(f"Interval(low={self.low}, high={self.high}): low exceeds high.")


@dataclass(frozen=True)
class Contrast:
    """Value minus control, paired over the resampled unit, in the measurement's unit."""

    difference: float
    interval: Interval
    p_value: float | None = None

    def __post_init__(self) -> None:
        _refuse_nan("contrast", self.difference)


@dataclass(frozen=True)
class Measurement:
    """One measured number; ``contrasts`` maps the name of a control to the difference to it."""

    name: str
    value: float
    unit: str
    num_units: int
    resampled_unit: str
    interval: Interval | None = None
    contrasts: dict[str, Contrast] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        _refuse_nan(self.name, self.value)

    def to_json(self) -> dict[str, Any]:
        return {"status": "measured", **asdict(self)}


@dataclass(frozen=True)
class NotMeasured:
    """What was not measured, and why; never counts as a pass."""

    name: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"status": "not_measured", **asdict(self)}


def measurement_from_json(entry: dict[str, Any]) -> Measurement | NotMeasured:
    """Inverse of ``to_json``."""
    entry = dict(entry)
    if entry.pop("status") == "not_measured":
        return NotMeasured(**entry)
    interval = entry.pop("interval")
    contrasts = entry.pop("contrasts")
    return Measurement(
        interval=Interval(**interval) if interval else None,
        contrasts={
            control: Contrast(
                contrast["difference"], Interval(**contrast["interval"]), contrast["p_value"]
            )
            for control, contrast in contrasts.items()
        },
        **entry,
    )


def _refuse_nan(name: str, *values: float) -> None:
    if any(math.isnan(value) for value in values):
        raise ValueError(f"{name} is not a number: a NaN is a failed measurement, not a result.")
