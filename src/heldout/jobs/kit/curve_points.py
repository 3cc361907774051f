"""From finished trainings on parts of the data to a curve, its forecasts and an answer."""

# D tokens of a training, G groups of held-out documents, R resamples, n trainings

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Interval
from heldout.core.results.learning_curve import CurvePoint, Forecast, LearningCurve
from heldout.scaling.learning_curve import curve_loss, fit_curve, refit_curve

FACTORS = (2.0, 4.0)
NUM_RESAMPLES = 400
METHOD = "bootstrap over groups and seeds"


def fit_points(
    points: Sequence[CurvePoint],
    losses: Sequence[DocumentLosses],
    base_nats_per_token: float,
    *,
    min_effect: float,
    num_resamples: int = NUM_RESAMPLES,
) -> LearningCurve:
    """The curve through finished trainings with its forecasts; the losses are of the same rows."""
    D = np.array([point.num_tokens for point in points], np.float64)
    fractions = np.array([point.fraction for point in points])
    observed = np.array([point.nats_per_token for point in points])
    found = fit_curve(D, observed)
    resampled = refit_curve(D, _resampled(points, losses, num_resamples))
    most = float(D[fractions == fractions.max()].mean())
    now, now_R = curve_loss(most, found.values), curve_loss(most, resampled)
    forecasts = []
    for factor in FACTORS:
        loss = curve_loss(factor * most, found.values)
        loss_R = curve_loss(factor * most, resampled)
        forecasts.append(
            Forecast(
                factor,
                factor * most,
                float(loss),
                _interval(float(loss), loss_R),
                float(now - loss),
                _interval(float(now - loss), now_R - loss_R),
            )
        )
    backtest = _backtest(D, fractions, observed)
    E, B, beta = map(float, found.values)
    answer, sentence = _answer(forecasts[0], min_effect)
    return LearningCurve(
        tuple(points),
        len(losses[0]),
        losses[0].num_groups,
        base_nats_per_token,
        E,
        B,
        beta,
        tuple(forecasts),
        backtest,
        min_effect,
        answer,
        sentence,
        tuple(_notes(points, backtest, resampled, found.values)),
    )


def _resampled(
    points: Sequence[CurvePoint], losses: Sequence[DocumentLosses], num_resamples: int
) -> np.ndarray:
    """Losses (R, n) with other held-out groups and other luck of the seeds.

    Seeds are few: what they add is drawn from the deviations of all runs from the mean of their
    size, enlarged by what a mean of few takes out of them.
    """
    rng = np.random.default_rng(0)
    names, group_D = np.unique(losses[0].groups_D, return_inverse=True)
    num_groups = len(names)
    nll_nG = np.stack(
        [np.bincount(group_D, weights=each.nll_nats_D, minlength=num_groups) for each in losses]
    )
    tokens_G = np.bincount(group_D, weights=losses[0].num_tokens_D, minlength=num_groups)
    counts_RG = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
    drawn_Rn = np.log(counts_RG @ nll_nG.T) - np.log(counts_RG @ tokens_G)[:, None]
    _, size_n = np.unique([point.fraction for point in points], return_inverse=True)
    num_seeds = np.bincount(size_n)
    per_size = np.zeros((len(points), len(num_seeds)))
    per_size[np.arange(len(points)), size_n] = 1 / num_seeds[size_n]
    mean_Rn = (drawn_Rn @ per_size)[:, size_n]
    log_n = np.log([each.nats_per_token for each in losses])
    least = num_seeds.min()
    if least < 2:
        return np.exp(drawn_Rn)
    deviation_n = (log_n - (log_n @ per_size)[size_n]) * math.sqrt(least / (least - 1))
    return np.exp(mean_Rn + rng.choice(deviation_n, size=drawn_Rn.shape))


def _interval(value: float, draws: np.ndarray, level: float = 0.95) -> Interval:
    """Percentiles, widened to hold the estimate."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(min(low, value)), float(max(high, value)), level, METHOD)


def _backtest(D: np.ndarray, fractions: np.ndarray, observed: np.ndarray) -> float | None:
    """Percent by which the curve through the smaller sizes lies over the largest one's loss."""
    smaller = fractions < fractions.max()
    if smaller.sum() < 4 or np.unique(fractions[smaller]).size < 3:
        return None
    said = curve_loss(float(D[~smaller].mean()), fit_curve(D[smaller], observed[smaller]).values)
    return float(100 * (said / observed[~smaller].mean() - 1))


def _answer(double: Forecast, min_effect: float) -> tuple[Literal["yes", "no", "unclear"], str]:
    low, high = double.gain_interval.low, double.gain_interval.high
    level = f"{double.gain_interval.level:.0%}".replace("%", " %")
    gain = f"by {double.gain:.3f} nats per token ({level}: {low:.3f} to {high:.3f})"
    if low > min_effect:
        return "yes", f"Yes: twice the data would lower the held-out loss {gain}."
    if high < min_effect:
        return "no", (
            f"No: twice the data would lower the held-out loss {gain}, less than the "
            f"{min_effect:g} that matter."
        )
    return "unclear", (
        f"Unclear: twice the data would lower the held-out loss {gain}, and {min_effect:g} matter. "
        "More seeds or more sizes would tell."
    )


def _notes(
    points: Sequence[CurvePoint],
    backtest: float | None,
    resampled: np.ndarray,
    values: np.ndarray,
) -> list[str]:
    """What the curve does not know, one sentence each."""
    said = [
        "All sizes use one learning rate: a small part with its own might do a little better, "
        "which would make the curve flatter.",
        "Twice and four times the data lie outside all that was measured: they are forecasts, and "
        "hold for more data of the same kind.",
    ]
    unfinished = sorted(
        {point.fraction for point in points if point.best_epoch == point.last_epoch}
    )
    if unfinished:
        said.append(
            f"At {', '.join(f'{fraction:.3g}' for fraction in unfinished)} of the data the loss "
            "was lowest at the last evaluation: more epochs (train.max_epochs) would lower it."
        )
    if len({point.seed for point in points}) < 2:
        said.append("One seed: the intervals know nothing of its luck.")
    if all(point.best_epoch == 0 for point in points):
        said.append("No training improved on the model as it was: the curve is flat for that.")
    floor = np.quantile(resampled[:, 0], 0.025)
    if floor < 0.5 * values[0]:
        said.append(
            "The floor E is not identified by these runs: far beyond them the curve is a guess."
        )
    if backtest is not None:
        over = "over" if backtest > 0 else "under"
        said.append(
            f"Tested on itself: the curve through the smaller sizes lies {abs(backtest):.2g} % "
            f"{over} the loss at the largest one."
        )
    return said
