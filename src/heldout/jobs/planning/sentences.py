"""Endings that sentences of an advice share."""

from heldout.core.results.advice import PredictedTraining


def in_interval(low: float | None, high: float | None, form: str = ".3g") -> str:
    """The interval in brackets, nothing where an end is open."""
    return "" if low is None or high is None else f" (95 %: {low:{form}} to {high:{form}})"


def as_guess(training: PredictedTraining) -> str:
    """A sentence on what lies outside the runs, nothing where all is inside."""
    if not training.guesses:
        return ""
    return f" A guess, outside the runs: {'; '.join(each.words for each in training.guesses)}."
