"""What a step costs with all regularizers: passes in words, and memory for what they keep."""

import math
import sys
from collections.abc import Sequence
from typing import Any

from heldout.core.regularizer import Regularizer


def total_cost(regularizers: Sequence[Regularizer], model: Any = None) -> str:
    """What a step costs with all of them, in words: R-Drop + SAM: 4 forwards, 4 backwards ..."""
    costs = [regularizer.cost for regularizer in regularizers]
    windows = math.prod(cost.windows for cost in costs)
    forwards = windows * (1 + sum(cost.forwards for cost in costs))
    backwards = windows * (1 + sum(cost.backwards for cost in costs))
    names = " + ".join(_title(regularizer) for regularizer in regularizers) or "Plain"
    passes = f"{_plural(forwards, 'forward')}, {_plural(backwards, 'backward')}"
    if model is None:
        return f"{names}: {passes} per step"
    gigabytes = added_bytes(regularizers, model) / 1e9
    return f"{names}: {passes} per step, +{gigabytes:.1f} GB"


def added_bytes(regularizers: Sequence[Regularizer], model: Any) -> float:
    """Memory for the copies that all of them keep."""
    costs = [regularizer.cost for regularizer in regularizers]
    trained = [p for p in model.parameters() if p.requires_grad]
    own = sum(p.numel() * p.element_size() for p in trained)
    floats = 4 * sum(p.numel() for p in trained)
    every = sum(p.numel() * p.element_size() for p in model.parameters())
    return sum(c.parameters * own + c.averages * floats + c.base * every for c in costs)


def _title(regularizer: Regularizer) -> str:
    """The name before the colon of the file's first line."""
    doc = sys.modules[type(regularizer).__module__].__doc__ or ""
    title, colon, _ = doc.strip().partition("\n")[0].partition(":")
    return title if colon else type(regularizer).__name__


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
