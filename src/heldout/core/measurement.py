"""A number with what it was measured on, its interval, and its difference to a control."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

TOO_FEW = "too few groups for an interval"


@dataclass(frozen=True)
class Interval:
    """Two-sided interval around an estimate, in the estimate's unit.

    A withheld one has no ends: it covers everything, so that no claim can rest on it.
    """

    low: float
    high: float
    level: float = 0.95
    method: str = "Student t over groups"

    def __post_init__(self) -> None:
        _refuse_nan("interval", self.low, self.high)
        if self.low > self.high:
            raise ValueError(f"Interval(low={self.low}, high={self.high}): low exceeds high.")

    @classmethod
    def withheld(cls, level: float = 0.95) -> Self:
        """Where groups are too few, or one holds too much, for any interval to be right."""
        return cls(-math.inf, math.inf, level, TOO_FEW)

    @property
    def is_withheld(self) -> bool:
        return self.low == -math.inf and self.high == math.inf

    def moved(self, *, times: float = 1.0, plus: float = 0.0) -> "Interval":
        """Of the estimate times a number, plus another; a negative one swaps the ends."""
        if self.is_withheld:
            return self
        low, high = sorted((self.low * times + plus, self.high * times + plus))
        return Interval(low, high, self.level, self.method)

    def within(self, least: float, most: float = math.inf) -> "Interval":
        """What of it lies in the range that the figure can have."""
        if self.is_withheld:
            return self
        low, high = (min(most, max(least, end)) for end in (self.low, self.high))
        return Interval(low, high, self.level, self.method)

    def words(self, form: str = ".3f") -> str:
        """``1.210 to 1.340``, or that it is withheld."""
        return TOO_FEW if self.is_withheld else f"{self.low:{form}} to {self.high:{form}}"

    def brackets(self, form: str = ".3f") -> str:
        """``[1.210, 1.340]``, or that it is withheld."""
        return f"({TOO_FEW})" if self.is_withheld else f"[{self.low:{form}}, {self.high:{form}}]"

    def to_json(self) -> dict[str, Any]:
        """Ends that are infinite are null."""
        ends = {"low": self.low, "high": self.high}
        return {**asdict(self), **{k: v if math.isfinite(v) else None for k, v in ends.items()}}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Inverse of ``to_json``."""
        low, high = entry["low"], entry["high"]
        return cls(
            **{
                **entry,
                "low": -math.inf if low is None else low,
                "high": math.inf if high is None else high,
            }
        )


@dataclass(frozen=True)
class Contrast:
    """Value minus control, paired over the resampled unit, in the measurement's unit."""

    difference: float
    interval: Interval
    p_value: float | None = None

    def __post_init__(self) -> None:
        _refuse_nan("contrast", self.difference)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval": self.interval.to_json()}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Inverse of ``to_json``."""
        return cls(entry["difference"], Interval.from_json(entry["interval"]), entry["p_value"])


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
        return {
            "status": "measured",
            **asdict(self),
            "interval": self.interval.to_json() if self.interval else None,
            "contrasts": {name: one.to_json() for name, one in self.contrasts.items()},
        }


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
        interval=Interval.from_json(interval) if interval else None,
        contrasts={
            control: Contrast(
                one["difference"], Interval.from_json(one["interval"]), one["p_value"]
            )
            for control, one in contrasts.items()
        },
        **entry,
    )


def _refuse_nan(name: str, *values: float) -> None:
    if any(math.isnan(value) for value in values):
        raise ValueError(f"{name} is not a number: a NaN is a failed measurement, not a result.")
