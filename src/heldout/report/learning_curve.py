"""Held-out loss over training data as a figure, and what more data would bring."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from heldout.core.results.learning_curve import CurvePoint, Forecast, LearningCurve
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Rule, Table, band, log_axis


def curve_chart(curve: LearningCurve) -> Chart:
    """All trainings, the power law through them, and its forecasts with their intervals."""
    points = curve.points
    ahead = sorted(curve.forecasts, key=lambda each: each.factor)
    legend = [
        Key("One training", "heldout_dots", "dots"),
        Key("Power law through them", "heldout"),
        Key("Forecast", "heldout", "diamond"),
        Key(f"Its {words.level(ahead[0].interval)} interval", "heldout_band", "band"),
    ]
    lowest = min(point.nats_per_token for point in points)
    highest = max(point.nats_per_token for point in points)
    rules = []
    if curve.base_nats_per_token <= highest + 0.5 * (highest - lowest):
        rules.append(Rule("base", y=curve.base_nats_per_token))
        legend.append(Key("Base model", "base", "dot"))
    sizes = [*_mean_sizes(points), *(each.num_tokens for each in ahead)]
    losses = [
        *((point.num_tokens, point.nats_per_token) for point in points),
        *((each.num_tokens, each.nats_per_token) for each in ahead),
    ]
    told = "; ".join(
        f"{words.integer(round(tokens))} tokens: {words.number(nats)}" for tokens, nats in losses
    )
    return Chart(
        "learning-curve",
        "Is more data worth it?",
        Figure(
            replace(
                log_axis("training tokens (logarithmic)", [tokens for tokens, _ in losses]),
                ticks=[(size, words.thousands(size)) for size in sorted(sizes)],
            ),
            Axis(),
            [*_law(curve, ahead), _trainings(points), _forecasts(ahead)],
            rules,
        ),
        "Held-out loss in nats per token, lower is better",
        f"Held-out loss over training tokens: {told}.",
        f"Each mark is the same recipe trained on a part of the data. Where the line runs flat at "
        f"its right end, more data of this kind brings little. It falls towards {curve.E:.3f}; "
        f"the dashed part lies outside all that was measured.",
        learning_table(curve),
        380,
        tuple(legend),
    )


def learning_table(curve: LearningCurve) -> Table:
    """Each training, and each forecast with its interval."""
    rows = [
        (
            words.integer(point.num_tokens),
            words.integer(point.num_rows),
            words.number(point.nats_per_token),
            "",
        )
        for point in curve.points
    ]
    rows += [
        (
            words.integer(round(each.num_tokens)),
            f"{each.factor:g} times the data",
            words.number(each.nats_per_token),
            words.interval(each.interval),
        )
        for each in curve.forecasts
    ]
    return Table(("Training tokens", "Training rows", "Held-out loss", "Interval"), rows)


def _law(curve: LearningCurve, ahead: Sequence[Forecast]) -> list[Mark]:
    """The band of the forecasts, and the law: solid over what was measured, dashed beyond."""
    most = curve.forecasts[0].num_tokens / curve.forecasts[0].factor
    here = curve.at(most)
    marks = [
        band(
            [most, *(each.num_tokens for each in ahead)],
            [here, *(each.interval.low for each in ahead)],
            [here, *(each.interval.high for each in ahead)],
            "heldout_band",
        )
    ]
    first = min(point.num_tokens for point in curve.points)
    last = max(each.num_tokens for each in ahead)
    for low, high, dash in ((first, most, "solid"), (most, last, "dash")):
        xs = np.geomspace(low, high, 40)
        marks.append(Mark(xs.tolist(), [curve.at(x) for x in xs], "heldout", dash=dash))
    return marks


def _trainings(points: Sequence[CurvePoint]) -> Mark:
    return Mark(
        [point.num_tokens for point in points],
        [point.nats_per_token for point in points],
        "heldout_dots",
        hover="%{rows} rows, seed %{seed}\n%{x} tokens: %{y}",
        details={
            "rows": [words.integer(point.num_rows) for point in points],
            "seed": [str(point.seed) for point in points],
        },
        symbol="circle",
        size=8,
    )


def _forecasts(ahead: Sequence[Forecast]) -> Mark:
    return Mark(
        [each.num_tokens for each in ahead],
        [each.nats_per_token for each in ahead],
        "heldout",
        hover="%{factor} times the data: %{y} [%{low}, %{high}]\nlower by %{gain}",
        details={
            "factor": [f"{each.factor:g}" for each in ahead],
            "low": [words.number(each.interval.low) for each in ahead],
            "high": [words.number(each.interval.high) for each in ahead],
            "gain": [words.number(each.gain) for each in ahead],
        },
        symbol="diamond",
        size=10,
        has_ring=True,
    )


def _mean_sizes(points: Sequence[CurvePoint]) -> list[float]:
    """Mean tokens of the trainings on each fraction of the data."""
    sizes: dict[float, list[int]] = {}
    for point in points:
        sizes.setdefault(point.fraction, []).append(point.num_tokens)
    return [fmean(each) for each in sizes.values()]
