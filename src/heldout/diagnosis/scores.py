"""Scores on held-out text that a log holds beside the loss, and whether the two disagree."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heldout.core.facts import HistoryPoint

# Parts of names of what an evaluation logs, where the training does not say which way is better:
# what is higher where it is better, and words for what is lower.
HIGHER = ("accuracy", "f1", "exact_match", "bleu", "rouge", "chrf", "reward", "pass@")
LOWER = {"wer", "cer", "mse", "rmse", "mae", "error"}
LEAST_GAIN = 0.1  # of the score at the lowest loss: less comes and goes with any loss


@dataclass(frozen=True)
class Disagreement:
    """A score that went on getting better after the loss was lowest: where each was best."""

    name: str
    by_loss: HistoryPoint
    by_score: HistoryPoint
    greater_is_better: bool

    @property
    def gain(self) -> float:
        """As a share of the score at the lowest loss."""
        return self.gain_at(self.by_score)

    def gain_at(self, point: HistoryPoint) -> float:
        """By how much the score is better at that point, as a share of what it was."""
        before, after = self.by_loss.extra[self.name], point.extra[self.name]
        if not self.greater_is_better:
            return 0.0 if before == 0 else (before - after) / abs(before)
        if before <= 0:
            return float("inf") if after > before else 0.0
        return after / before - 1


def disagreement(history: Sequence[HistoryPoint], told: Mapping[str, bool]) -> Disagreement | None:
    """Of the scores, the one that gained most after the lowest loss; None where none did.

    ``told`` is what the training says of its scores: name to whether greater is better.
    """
    points = [point for point in history if point.validation_nll is not None]
    if len(points) < 2:
        return None
    lowest = min(points, key=lambda point: point.validation_nll or 0.0)
    found = []
    for name in sorted(lowest.extra):
        greater = greater_is_better(name, told)
        if greater is None:
            continue
        scored = [point for point in points if name in point.extra]
        best = (max if greater else min)(scored, key=lambda point: point.extra[name])
        one = Disagreement(name, lowest, best, greater)
        if best.step > lowest.step and one.gain >= LEAST_GAIN:
            found.append(one)
    return max(found, key=lambda one: one.gain, default=None)


def greater_is_better(name: str, told: Mapping[str, bool]) -> bool | None:
    """Which way a score of held-out text is better; None for what is no score that is known.

    By what the training says, ``told``, else by well-known names.
    """
    if name in told:
        return told[name]
    if name.startswith("training"):
        return None
    if any(part in name for part in HIGHER):
        return True
    words = set(re.split(r"[^a-z]+", name))
    return False if words & LOWER and not words & {"std", "standard"} else None
