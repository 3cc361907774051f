"""Histories of every shape that a run can take, drawn at random: the same for the same seed."""

import math
from random import Random
from typing import Any

from heldout.core.facts import HistoryPoint

SHAPES = ("falling", "rising", "still", "twice", "grokking", "jagged", "short")
EXTRA = ("accuracy", "training_accuracy", "ttr", "weight_norm")


def made_history(seed: int) -> tuple[list[HistoryPoint], dict[str, Any]]:
    """A history, and the other arguments of ``kind_of_run``."""
    draw = Random(seed)
    shape = draw.choice(SHAPES)
    num = draw.randint(0, 3) if shape == "short" else draw.randint(3, 14)
    start = draw.uniform(0.5, 8)
    noise = draw.choice((0, 0, 0.003, 0.03)) * start
    trains_to = draw.choice((0.01, 0.1, 0.3, 0.7, 0.97, 1.0))
    measures = {
        name: draw.random() < 0.6
        for name in ("accuracy", "training_accuracy", "ttr", "weight_norm")
    }
    diverse, with_training = draw.uniform(-0.1, 0.6), draw.random() < 0.8
    error = draw.choice((None, None, 0.001, 0.3))
    spacing = draw.choice((1, 7, 50))
    history = []
    for index in range(num):
        time = index / max(num - 1, 1)
        fraction = _loss(shape, time, draw)
        training = start * (1 - (1 - trains_to) * min(1.0, 2 * time))
        extra = {
            "accuracy": min(1.0, _accuracy(shape, time, draw)),
            "training_accuracy": min(1.0, 0.1 + 3 * time),
            "ttr": 0.15 + diverse * time,
            "weight_norm": 10 + 5 * math.sin(3 * time),
        }
        history.append(
            HistoryPoint(
                index * spacing,
                time,
                training if with_training and draw.random() < 0.95 else None,
                start * fraction + draw.uniform(-noise, noise) if draw.random() < 0.95 else None,
                validation_error=error,
                extra={n: v for n, v in extra.items() if measures[n] and draw.random() < 0.9},
            )
        )
    options: dict[str, Any] = {}
    if draw.random() < 0.6:
        options["memorized_share"] = draw.choice((0.0, 0.02, 0.05, 0.3, 0.9))
    if draw.random() < 0.1:
        sizes = draw.sample(range(1, 200), draw.randint(2, 7))
        options["losses_by_size"] = [(size, draw.uniform(1, 2)) for size in sizes]
    return history, options


def _loss(shape: str, time: float, draw: Random) -> float:
    """Held-out loss as a share of its start."""
    if shape == "falling":
        return math.exp(-3 * time)
    if shape == "rising":
        return 1 - 0.6 * min(1.0, 3 * time) + 0.9 * max(0.0, time - 0.4)
    if shape == "still":
        return 1 - 0.02 * time
    if shape == "twice":
        return 1 - 0.6 * time + 0.8 * math.exp(-((time - 0.45) ** 2) / 0.02)
    if shape == "grokking":
        return 1 + time if time < 0.6 else 2 * (1 - time)
    return draw.uniform(0.3, 1.1)


def _accuracy(shape: str, time: float, draw: Random) -> float:
    if shape == "grokking":
        return 0.1 if time < 0.7 else draw.choice((0.75, 0.98))
    return 0.1 + 0.3 * time + draw.uniform(0, 0.05)
