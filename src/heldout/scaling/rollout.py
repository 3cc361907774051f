"""Which law forecasts best: fitted to small runs, judged on larger ones, over and over.

A rolled-out forecast fits a law to the runs below a cut-off and predicts those above it, along
compute, unique tokens or epochs. The law is chosen by these alone: runs that are kept for a final
test have no part in it. Where all forecasts of the chosen law along the one axis that is asked for
err to one side, those beyond the runs are corrected by the error of the last, as in an intercept
correction (Clements and Hendry 1996).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
    """One cut-off along one axis: errors of all laws on the runs beyond it (RMS of log loss).

    ``biases`` are the means of log observed over predicted loss: below 0 the forecast was too high.
    """

    axis: str
    cutoff: float
    num_train: int
    num_test: int
    errors: dict[str, float]
    biases: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """The chosen law, the score of each law (lower is better), and why.

    ``corrections`` holds a factor for its forecasts beyond the runs where one axis was asked for
    and its rolled-out forecasts along that all err to one side.
    """

    law: str
    scores: dict[str, float]
    reason: str
    left_out: tuple[str, ...] = ()
    corrections: dict[str, float] = field(default_factory=dict)


def forecast_error(fitted: Fit, test: Runs, correction: float = 1.0) -> float:
    """Root mean square of log observed over predicted loss, which is multiplied by a factor."""
    error = log_errors(fitted, test) - np.log(correction)
    return float(np.sqrt((error**2).mean()))


def log_errors(fitted: Fit, test: Runs) -> np.ndarray:
    """Log of observed over predicted loss, one a run."""
    return np.log(test.loss / np.maximum(fitted.predict(test), 1e-30))


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
            # From one value along the axis, none can learn what a larger one brings.
            varied = (train.N, train.D, values[inner])
            thin = min(np.unique(each).size for each in varied) < 2
            if len(train) < most + 2 or len(test) < LEAST_TEST or thin or blind:
                continue
            fits = {law.name: fit(law, train, delta=delta, num_starts=6) for law in laws}
            errors = {name: forecast_error(each, test) for name, each in fits.items()}
            biases = {name: float(log_errors(each, test).mean()) for name, each in fits.items()}
            made.append(Rollout(axis, cutoff, len(train), len(test), errors, biases))
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
        cannot = (
            f"{', '.join(left_out)} cannot show overfitting and runs go to "
            f"{runs.epochs.max():.3g} epochs"
        )
        reason = f"{reason}; {cannot}"
    # Errors along several axes are partly the same: together they would count twice.
    factors = corrections(best.name, used) if len(axes) == 1 else {}
    return Choice(best.name, scores, reason, left_out, factors)


def corrections(law: str, made: Sequence[Rollout]) -> dict[str, float]:
    """By axis, the factor that the law's last rolled-out forecast there would have needed.

    Only where two or more were made and all of them were too high, or all too low. The last is the
    one from most runs. ``benchmarks/law_correction.py`` compares this with other rules.
    """
    found = {}
    for axis in dict.fromkeys(rollout.axis for rollout in made):
        along = sorted((each for each in made if each.axis == axis), key=lambda each: each.cutoff)
        biases = [rollout.biases[law] for rollout in along]
        if len(biases) > 1 and (min(biases) > 0 or max(biases) < 0):
            found[axis] = float(np.exp(biases[-1]))
    return found


def correction_notes(choice: Choice) -> list[str]:
    """The corrections in words."""
    return [
        f"All rolled-out forecasts of {choice.law} in {AXES[axis][0]} were too "
        f"{'high' if factor < 1 else 'low'}: beyond these runs multiply its forecasts by "
        f"{factor:.3f}, which the last of them would have needed."
        for axis, factor in choice.corrections.items()
    ]


def _score(name: str, used: Sequence[Rollout]) -> float:
    medians = [
        np.median([rollout.errors[name] for rollout in used if rollout.axis == axis])
        for axis in dict.fromkeys(rollout.axis for rollout in used)
    ]
    return float(np.exp(np.mean(np.log(np.maximum(medians, 1e-12)))))
