"""Numbers out of files that others wrote, and into files that others read."""

import math
from typing import Any


def finite(value: Any) -> float | None:
    """A real number, or None for null, NaN, infinity and what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def without_infinity(value: Any) -> Any:
    """The same with null for infinite numbers, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_infinity(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinity(each) for each in value]
    return None if isinstance(value, float) and math.isinf(value) else value
