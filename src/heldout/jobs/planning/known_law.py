"""A law with its parameters, draws of them, and the runs it was measured on: own or published."""

# R draws of a law's parameters

import math
from dataclasses import asdict, dataclass

import numpy as np

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.results.advice import Guess, LawUsed, PredictedTraining
from heldout.jobs.planning.fitted_law import OwnRuns, all_laws, fitted_law
from heldout.scaling import published
from heldout.scaling.fit import Fit, fit
from heldout.scaling.intervals import (
    MOST_EPOCHS_AS_NEW,
    bootstrap,
    percentile_ranges,
    warnings,
)
from heldout.scaling.law import Law
from heldout.scaling.optimum import FLOPS_PER_TOKEN, Limits, best_point, best_points, trained
from heldout.scaling.reach import outside, place, ranges
from heldout.scaling.table import RunTable

LEVEL = 0.95
SLACK = 1.1  # within 10 % of the runs is not called outside


@dataclass(frozen=True)
class KnownLaw:
    """``draws`` (R, P) and log ``residuals`` are None where there are no own runs."""

    law: Law
    values: np.ndarray
    draws: np.ndarray | None
    residuals: np.ndarray | None
    within: dict[str, tuple[float, float]]
    used: LawUsed

    def training(self, N: float, D: float, U: float) -> PredictedTraining:
        """The loss of one training, with the interval of one new run where there are draws."""
        runs = trained([N], [D], U)
        loss = float(self.law.loss(runs, self.values)[0])
        low = high = None
        if self.draws is not None and self.residuals is not None:
            drawn_R = self.law.loss(runs, self.draws)[:, 0]
            luck_R = np.random.default_rng(0).choice(self.residuals, size=len(drawn_R))
            low, high = ends(drawn_R * np.exp(luck_R), loss)
        at = place(N, D, U)
        guesses = tuple(
            Guess(**asdict(each), words=each.words) for each in outside(at, self.within, SLACK)
        )
        return PredictedTraining(N, D, at["U"], at["epochs"], at["flops"], loss, low, high, guesses)

    def best(self, limits: Limits, N: float | None, epochs: float | None) -> PredictedTraining:
        """The lowest loss within ``limits``, of a size or of any, for so many epochs or any."""
        if epochs is None:
            size, D = best_point(self.law, self.values, limits, N)
            return self.training(size, D, limits.U)
        if epochs > self.used.most_epochs:
            raise UserError(
                f"--epochs {epochs:g} cannot be answered: {self.used.why_most_epochs}. Give at "
                f"most {self.used.most_epochs:.4g}, or runs of more epochs with a law that can "
                "rise (--law hybrid or lovelace)."
            )
        D = epochs * limits.U
        size = N if N is not None else limits.flops / (FLOPS_PER_TOKEN * D)
        needed = FLOPS_PER_TOKEN * size * D
        if needed > limits.flops * 1.0001:
            raise UserError(
                f"{epochs:g} epochs of {limits.U:.3g} tokens with {size:.3g} parameters take "
                f"{needed:.3g} FLOPs, and the budget is {limits.flops:.3g}: lower one of them."
            )
        return self.training(size, D, limits.U)

    def best_ranges(
        self, limits: Limits, N: float | None, best: PredictedTraining
    ) -> dict[str, tuple[float | None, float | None]]:
        """Intervals of the best N, D and epochs over the draws; open where there are none."""
        if self.draws is None:
            return dict.fromkeys(("N", "D", "epochs"), (None, None))
        N_R, D_R = best_points(self.law, self.draws, limits, N, best.N)
        epochs_R = np.maximum(D_R / limits.U, 1.0)
        return {
            "N": ends(N_R, best.N),
            "D": ends(D_R, best.D),
            "epochs": ends(epochs_R, best.epochs),
        }

    def change(
        self, before: PredictedTraining, after: PredictedTraining
    ) -> tuple[float, float | None, float | None]:
        """Loss of ``after`` minus that of ``before``, with its interval where there are draws."""
        value = after.loss - before.loss
        if self.draws is None:
            return value, None, None
        drawn = [
            self.law.loss(trained([each.N], [each.D], each.U), self.draws)[:, 0]
            for each in (before, after)
        ]
        return value, *ends(drawn[1] - drawn[0], value)


def ends(draws: np.ndarray, value: float) -> tuple[float, float]:
    """Percentile interval, widened to hold the estimate."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(min(low, value)), float(max(high, value))


def own_law(
    runs: OwnRuns,
    *,
    law: str = "",
    num_resamples: int = 400,
    progress: Progress | None = None,
) -> tuple[KnownLaw, RunTable, list[str]]:
    """The law of a table of runs: the named one, or the one that forecasts best.

    Where runs go beyond four epochs it is the best forecaster whose loss can rise with them. Also
    returns the table, and what its runs cannot tell.
    """
    progress = progress or Progress()
    found = fitted_law(runs, law=law, progress=progress)
    best, longest = found.fit, float(found.fit.runs.epochs.max())
    reason = "named with --law" if law else (found.choice.reason if found.choice else "")
    repeats = longest > MOST_EPOCHS_AS_NEW
    if repeats and not best.law.RISES_WITH_EPOCHS and not law and found.choice:
        rising = [each for each in all_laws(runs.uniform_loss) if each.RISES_WITH_EPOCHS]
        scores = {each.name: found.choice.scores.get(each.name, math.inf) for each in rising}
        chosen = min(rising, key=lambda each: scores[each.name])
        if math.isfinite(scores[chosen.name]):
            reason = (
                f"{best.law.name} forecasts best, but its loss cannot rise with the epochs, which "
                f"go to {longest:.3g} here; of the laws that can, {chosen.name} forecasts best"
            )
            best = fit(chosen, best.runs, delta=best.delta)
    with progress.stage("intervals"):
        draws = bootstrap(best, num_resamples)
    most, why = _most_epochs(best, longest)
    used = LawUsed(
        best.law.name,
        best.law.FORMULA,
        best.parameters,
        "own runs",
        str(runs.path),
        len(best.runs),
        reason or "the law of fewest parameters: too few runs for rolled-out forecasts",
        most,
        why,
    )
    # Enlarged by what fitting has taken out of them.
    freedom = max(len(best.runs) - best.num_free, 1)
    residuals = best.residuals * math.sqrt(len(best.runs) / freedom)
    known = KnownLaw(best.law, best.values, draws, residuals, ranges(best.runs), used)
    unknown = warnings(best, percentile_ranges(best, draws), draws)
    return known, found.table, [*found.said, *found.table.notes, *unknown]


def _most_epochs(best: Fit, longest: float) -> tuple[float, str]:
    if not best.law.RISES_WITH_EPOCHS:
        return MOST_EPOCHS_AS_NEW, (
            f"the loss of the law {best.law.name} cannot rise as tokens are repeated, so beyond "
            f"{MOST_EPOCHS_AS_NEW} epochs it knows nothing"
        )
    if longest <= MOST_EPOCHS_AS_NEW:
        return MOST_EPOCHS_AS_NEW, (
            f"these runs go to {longest:.3g} epochs, which says nothing of more than "
            f"{MOST_EPOCHS_AS_NEW}"
        )
    return longest, f"these runs go to {longest:.3g} epochs"


def published_law(name: str = "") -> KnownLaw:
    """A law with published constants, by default the one that knows repetition."""
    by_name = {each.law.name: each for each in published.LAWS}
    if name and name not in by_name:
        raise UserError(
            f"Without --runs there are published constants of {' and '.join(by_name)} alone, got "
            f"--law {name!r}: give runs, or one of these."
        )
    chosen = by_name[name or published.MUENNIGHOFF.law.name]
    most, why = 1.0, f"the law {chosen.law.name} knows nothing of repetition"
    if chosen.law.KNOWS_REPETITION:
        most = float(MOST_EPOCHS_AS_NEW)
        why = (
            f"the loss of the law {chosen.law.name} cannot rise as tokens are repeated, so beyond "
            f"{MOST_EPOCHS_AS_NEW} epochs it knows nothing: own runs of more epochs would tell"
        )
    used = LawUsed(
        chosen.law.name,
        chosen.law.FORMULA,
        dict(chosen.parameters),
        "published, not yours",
        chosen.citation,
        0,
        "no runs were given",
        most,
        why,
    )
    values = chosen.law.values(chosen.parameters)
    return KnownLaw(chosen.law, values, None, None, dict(chosen.ranges), used)
