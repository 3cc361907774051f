"""Runs whose loss lies so far above that of their like that they have likely diverged."""

# n runs

from collections.abc import Sequence

import numpy as np

from heldout.scaling.fit import Fit
from heldout.scaling.runs import Runs
from heldout.scaling.surface import LEAST_TO_REGRESS, residuals_of_surface

MOST_EPOCHS = 4.0  # beyond, a loss may rise without a fault
OUTLIER = 0.1  # of log loss above what runs of that size and length have, and 6 deviations or more
NEAREST = 4  # runs by N, U and epochs


def diverged_notes(lines: Sequence[int], runs: Runs) -> list[str]:
    """Runs far above those of their size and length; ``lines`` are theirs in the table.

    Of runs of more than ``MOST_EPOCHS`` epochs a law must tell: ``repeated_notes``.
    """
    excess = np.maximum(_above_smaller(runs), _above_others(runs))
    return _notes(lines, runs, excess, "what runs of that size and length have")


def repeated_notes(lines: Sequence[int], fitted: Fit) -> list[str]:
    """Runs of more than ``MOST_EPOCHS`` epochs far above a fitted law, and above their like.

    The law must know that repetition hurts. It is robust, but errs after very many epochs, so that
    a run counts only where it lies as far above the runs nearest to it.
    """
    runs, residuals = fitted.runs, fitted.residuals
    is_repeated = runs.epochs > MOST_EPOCHS
    if not fitted.law.SHOWS_OVERFITTING or len(runs) < LEAST_TO_REGRESS:
        return []
    least = max(OUTLIER, 8 * 1.4826 * float(np.median(np.abs(residuals))))
    excess = np.minimum(residuals, residuals - _nearest(runs, residuals))
    excess = np.where(is_repeated & (excess > least), excess, 0.0)
    return _notes(lines, runs, excess, f"the law {fitted.law.name} and the runs nearest to it")


def _notes(lines: Sequence[int], runs: Runs, excess: np.ndarray, than: str) -> list[str]:
    found = np.flatnonzero(excess > 0)
    if not len(found) or len(found) > len(runs) / 4:
        return []
    shown = ", ".join(f"line {lines[p]} ({runs.loss[p]:.3g})" for p in found[:5].tolist())
    what = "1 run looks" if len(found) == 1 else f"{len(found)} runs look"
    return [
        f"{what} diverged, with a loss {np.expm1(excess[found].min()):.0%} or more above {than}: "
        f"{shown}. So few can switch the law and ruin its forecasts: drop them, or train them "
        "again."
    ]


def _nearest(runs: Runs, residuals: np.ndarray) -> np.ndarray:
    """The third of the four residuals of the runs that are nearest to each."""
    axes_n3 = np.stack([np.log(axis) for axis in (runs.N, runs.U, runs.epochs)], axis=1)
    axes_n3 = (axes_n3 - axes_n3.mean(0)) / np.maximum(axes_n3.std(0), 1e-9)
    apart_nn = ((axes_n3[:, None] - axes_n3[None]) ** 2).sum(-1)
    np.fill_diagonal(apart_nn, np.inf)
    near_n4 = np.argsort(apart_nn, axis=1, kind="stable")[:, :NEAREST]
    return np.sort(residuals[near_n4], axis=1)[:, NEAREST - 2]


def _above_smaller(runs: Runs) -> np.ndarray:
    """By how much the log loss lies above that of any smaller run on less data, all one-epoch."""
    logs, excess = np.log(runs.loss), np.zeros(len(runs))
    fresh = runs.epochs <= 1.5
    for place in np.flatnonzero(fresh):
        smaller = fresh & (runs.N[place] >= runs.N) & (runs.D[place] >= runs.D)
        least = logs[smaller].min()
        # Above two of them: one alone may be the one that is wrong.
        if (logs[smaller] < logs[place] - OUTLIER).sum() >= 2:
            excess[place] = logs[place] - least
    return np.where(excess > OUTLIER, excess, 0.0)


def _above_others(runs: Runs) -> np.ndarray:
    """By how much it lies above a smooth surface in log N, log D and epochs, fitted to medians.

    Of runs up to ``MOST_EPOCHS``, beyond which a loss may rise without a fault.
    """
    excess = np.zeros(len(runs))
    fresh = np.flatnonzero(runs.epochs <= MOST_EPOCHS)
    found = residuals_of_surface(runs[fresh])
    if found is not None:
        deviation = 1.4826 * np.median(np.abs(found.residuals))
        is_far = found.residuals > max(OUTLIER, 6 * deviation)
        excess[fresh] = np.where(is_far, found.residuals, 0.0)
    return excess
