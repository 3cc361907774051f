"""Scores on held-out text that a log holds beside the loss, and whether the two disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

from heldout.core.facts import HistoryPoint

# Parts of names of what an evaluation logs, and what is higher where it is better.
SCORES = ("accuracy", "f1", "exact_match", "bleu", "rouge", "chrf", "reward", "pass@")
LEAST_GAIN = 0.1  # of the score at the lowest loss: less comes and goes with any loss


@dataclass(frozen=True)
class Disagreement:
    """A score that went on rising after the loss was lowest: where each was best."""

    name: str
    by_loss: HistoryPoint
    by_score: HistoryPoint

    @property
    def gain(self) -> float:
        """As a share of the score at the lowest loss."""
        return gain_of(self.name, self.by_loss, self.by_score)


def gain_of(name: str, first: HistoryPoint, second: HistoryPoint) -> float:
    """By how much a score is higher at the second point, as a share of what it was."""
    before, after = first.extra[name], second.extra[name]
    if before <= 0:
        return float("inf") if after > before else 0.0
    return after / before - 1


def disagreement(history: Sequence[HistoryPoint]) -> Disagreement | None:
    """Of the scores, the one that gained most after the lowest loss; None where none did."""
    points = [point for point in history if point.validation_nll is not None]
    if len(points) < 2:
        return None
    lowest = min(points, key=lambda point: point.validation_nll or 0.0)
    found = []
    for name in sorted(filter(is_score, lowest.extra)):
        scored = [point for point in points if name in point.extra]
        best = max(scored, key=lambda point: point.extra[name])
        if best.step > lowest.step and gain_of(name, lowest, best) >= LEAST_GAIN:
            found.append(Disagreement(name, lowest, best))
    return max(found, key=lambda one: one.gain, default=None)


def is_score(name: str) -> bool:
    """Whether that is measured on held-out text, and higher where it is better."""
    return any(part in name for part in SCORES) and not name.startswith("training")
