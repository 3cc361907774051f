"""Numbers out of files that others wrote."""

import math
from typing import Any


def finite(value: Any) -> float | None:
    """A real number, or None for null, NaN, infinity and what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
