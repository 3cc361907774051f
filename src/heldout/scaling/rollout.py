"""Which law forecasts best: fitted to small runs, judged on larger ones, over and over.

A rolled-out forecast fits a law to the runs below a cut-off and predicts those above it, along
compute, unique tokens or epochs. The law is chosen by these alone: runs that are kept for a final
test have no part in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.errors import UserError
from heldout.scaling.fit import Fit, fit
from heldout.scaling.huber import DELTA
from heldout.scaling.intervals import MOST_EPOCHS_AS_NEW
from heldout.scaling.law import Law
from heldout.scaling.runs import Runs

AXES: dict[str, tuple[str, Callable[[Runs], np.ndarray]]] = {
    "compute": ("FLOPs", lambda runs: runs.flops),
    "unique": ("unique tokens", lambda runs: runs.U),
    "epochs": ("epochs", lambda runs: runs.epochs),
}
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8)
LEAST_TEST = 4
CLOSE = 1.02  # scores within 2 % are a tie, which the law of fewer parameters wins


@dataclass(frozen=True)
class Rollout:
    """One cut-off along one axis: errors of all laws on the runs beyond it (RMS of log loss)."""

    axis: str
    cutoff: float
    num_train: int
    num_test: int
    errors: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """The chosen law, the score of each law (lower is better), and why."""

    law: str
    scores: dict[str, float]
    reason: str
    left_out: tuple[str, ...] = ()


def forecast_error(fitted: Fit, test: Runs) -> float:
    """Root mean square of log observed over predicted loss."""
    error = np.log(test.loss / np.maximum(fitted.predict(test), 1e-30))
    return float(np.sqrt((error**2).mean()))


def cutoffs(values: np.ndarray, shares: Sequence[float] = SHARES) -> list[float]:
    """Values that have about these shares of the runs at or below them, each once."""
    distinct = np.unique(values)[:-1]
    below = np.array([(values <= value).mean() for value in distinct])
    found: list[float] = []
    for share in shares:
        if len(distinct):
            value = float(distinct[np.argmin(np.abs(below - share))])
            if value not in found:
                found.append(value)
    return found


def rollouts(
    laws: Sequence[Law],
    runs: Runs,
    *,
    delta: float = DELTA,
    axes: Sequence[str] = tuple(AXES),
    advance: Callable[[], None] = lambda: None,
) -> list[Rollout]:
    """All rolled-out forecasts that these runs allow; none where a law could not be fitted."""
    most = max(len(law.PARAMETERS) for law in laws)
    made = []
    for axis in axes:
        values = AXES[axis][1](runs)
        for cutoff in cutoffs(values):
            inner = values <= cutoff
            train, test = runs[inner], runs[~inner]
            # Without repetition among them, no law can learn from these runs what it costs.
            blind = axis == "epochs" and not train.is_repeated
            thin = min(np.unique(train.N).size, np.unique(train.D).size) < 2
            if len(train) < most + 2 or len(test) < LEAST_TEST or thin or blind:
                continue
            errors = {
                law.name: forecast_error(fit(law, train, delta=delta, num_starts=6), test)
                for law in laws
            }
            made.append(Rollout(axis, cutoff, len(train), len(test), errors))
            advance()
    return made


def choose(
    laws: Sequence[Law], runs: Runs, made: Sequence[Rollout], axes: Sequence[str] = tuple(AXES)
) -> Choice:
    """The law with the lowest score: median error along an axis, geometric mean over axes.

    The median, because one cut-off that leaves a law's parameters unidentified says little of the
    fit to all runs. Where runs go beyond four epochs only laws that can show overfitting stand.
    ``axes`` narrows the choice to the direction of the forecast that is wanted.
    """
    used = [rollout for rollout in made if rollout.axis in axes]
    if not used:
        raise UserError(
            f"These {len(runs)} runs are too few for rolled-out forecasts along "
            f"{', '.join(axes)}: name a law with --law."
        )
    needs = bool((runs.epochs > MOST_EPOCHS_AS_NEW).any())
    able = [law for law in laws if law.SHOWS_OVERFITTING or not needs]
    able = able or list(laws)
    scores = {law.name: _score(law.name, used) for law in laws}
    least = min(scores[law.name] for law in able)
    tied = [law for law in able if scores[law.name] <= least * CLOSE]
    best = min(tied, key=lambda law: (len(law.PARAMETERS), scores[law.name]))
    along = ", ".join(dict.fromkeys(rollout.axis for rollout in used))
    reason = (
        f"lowest median error of {len(used)} rolled-out forecasts in {along}: "
        f"{scores[best.name]:.3f} of log loss"
    )
    left_out = tuple(law.name for law in laws if law not in able)
    if left_out:
        reason += (
            f"; {', '.join(left_out)} cannot show overfitting and runs go to "
            f"{runs.epochs.max():.3g} epochs"
        )
    return Choice(best.name, scores, reason, left_out)


def _score(name: str, used: Sequence[Rollout]) -> float:
    medians = [
        np.median([rollout.errors[name] for rollout in used if rollout.axis == axis])
        for axis in dict.fromkeys(rollout.axis for rollout in used)
    ]
    return float(np.exp(np.mean(np.log(np.maximum(medians, 1e-12)))))
