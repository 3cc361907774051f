"""What a search may set a number, a word or a technique of a recipe to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from heldout.core.errors import UserError

Value: TypeAlias = float | str | bool
# Dotted key of a recipe -> value; ``regularizers.NAME.used`` says whether there is NAME at all.
Point: TypeAlias = dict[str, Value]
USED = ".used"


@dataclass(frozen=True)
class Between:
    """All numbers between two, both included; ``log``: as many between 1 and 2 as 2 and 4."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


Range: TypeAlias = Between | tuple[Value, ...]


def read_ranges(table: Any, name: str) -> dict[str, Range]:
    """Dotted key -> range, from a table of TOML with keys dotted or in tables within tables.

    Raises UserError for what is no range.
    """
    if not isinstance(table, dict):
        raise UserError(f"{name} must be a table, got {table!r}.")
    found: dict[str, Range] = {}
    for key, value in table.items():
        at = f"{name}.{key}"
        if isinstance(value, Between):
            found[key] = value
        elif not isinstance(value, dict):
            found[key] = _choices(value, at)
        elif "low" in value or "high" in value:
            found[key] = _interval(value, at)
        else:
            found |= {f"{key}.{rest}": each for rest, each in read_ranges(value, at).items()}
    return found


def values_of(choices: Range) -> tuple[Value, ...]:
    """All choices, or the two ends of an interval."""
    return (choices.low, choices.high) if isinstance(choices, Between) else choices


def in_words(point: Mapping[str, Value]) -> str:
    """A point for people, without sections: ``learning_rate 0.001, without ema``."""
    return ", ".join(setting_in_words(key, value) for key, value in point.items())


def setting_in_words(key: str, value: Value) -> str:
    """One of a point."""
    name = key.partition(".")[2]
    if key.endswith(USED):
        return f"{'with' if value else 'without'} {name.removesuffix(USED)}"
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    return f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"


def point_key(point: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    """Equal for equal points, also where a number was whole."""
    return tuple(
        sorted(
            (key, value if isinstance(value, bool | str) else float(value))
            for key, value in point.items()
        )
    )


def _choices(value: Any, name: str) -> tuple[Value, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if values and all(_is_number(each) for each in values):
        numbers = [float(each) for each in values]
        if numbers == sorted(set(numbers)):
            return tuple(numbers)
    elif values and all(isinstance(each, str) and each for each in values):
        if isinstance(value, list | tuple) and len(set(values)) == len(values):
            return tuple(values)
    elif sorted(values, key=str) == [False, True]:
        return tuple(values)
    raise UserError(
        f"{name} must be rising numbers, different words, [true, false], or "
        f"{{ low = ..., high = ..., log = true }}, got {value!r}."
    )


def _interval(table: Mapping[str, Any], name: str) -> Between:
    low, high, log = table.get("low"), table.get("high"), table.get("log", False)
    is_sound = set(table) <= {"low", "high", "log"} and isinstance(log, bool)
    if not (is_sound and _is_number(low) and _is_number(high) and float(low) < float(high)):  # type: ignore[arg-type]
        raise UserError(
            f"{name} must be {{ low = ..., high = ... }} with low under high, and log = true or "
            f"false if given, got {dict(table)}."
        )
    if log and float(low) <= 0:  # type: ignore[arg-type]
        raise UserError(f"{name}: low must be above 0 with log = true, got {low}.")
    return Between(float(low), float(high), log)  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
