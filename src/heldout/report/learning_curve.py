"""Held-out loss over training data as a figure, and what more data would bring."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import plotly.graph_objects as go

from heldout.core.results.learning_curve import CurvePoint, Forecast, LearningCurve
from heldout.report import words
from heldout.report.chart import Chart, Key, band, blank, horizontal, line, marker


def curve_chart(curve: LearningCurve) -> Chart:
    """All trainings, the power law through them, and its forecasts with their intervals."""
    height = 380
    figure = blank(height)
    points = curve.points
    ahead = sorted(curve.forecasts, key=lambda each: each.factor)
    figure.add_traces([*_law(curve, ahead), _trainings(points), _forecasts(ahead)])
    legend = [
        Key("One training", "heldout_dots", "dots"),
        Key("Power law through them", "heldout"),
        Key("Forecast", "heldout", "diamond"),
        Key(f"Its {words.level(ahead[0].interval)} interval", "heldout_band", "band"),
    ]
    lowest = min(point.nats_per_token for point in points)
    highest = max(point.nats_per_token for point in points)
    if curve.base_nats_per_token <= highest + 0.5 * (highest - lowest):
        horizontal(figure, curve.base_nats_per_token, "base")
        legend.append(Key("Base model", "base", "dot"))
    ticks = [*_mean_sizes(points), *(each.num_tokens for each in ahead)]
    figure.update_xaxes(
        type="log",
        title_text="training tokens (logarithmic)",
        showgrid=True,
        tickvals=ticks,
        ticktext=[words.thousands(tick) for tick in ticks],
    )
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
        figure,
        "Held-out loss in nats per token, lower is better",
        f"Held-out loss over training tokens: {told}.",
        f"Each mark is the same recipe trained on a part of the data. Where the line runs flat at "
        f"its right end, more data of this kind brings little. It falls towards {curve.E:.3f}; "
        f"the dashed part lies outside all that was measured.",
        height,
        tuple(legend),
    )


def _law(curve: LearningCurve, ahead: Sequence[Forecast]) -> list[go.Scatter]:
    """The band of the forecasts, and the law: solid over what was measured, dashed beyond."""
    most = curve.forecasts[0].num_tokens / curve.forecasts[0].factor
    here = curve.at(most)
    traces = [
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
        traces.append(
            go.Scatter(
                x=xs.tolist(),
                y=[curve.at(x) for x in xs],
                mode="lines",
                line=line("heldout", dash=dash),
                hoverinfo="skip",
            )
        )
    return traces


def _trainings(points: Sequence[CurvePoint]) -> go.Scatter:
    return go.Scatter(
        x=[point.num_tokens for point in points],
        y=[point.nats_per_token for point in points],
        customdata=[(point.num_rows, point.seed) for point in points],
        mode="markers",
        marker=marker("heldout_dots", size=8),
        hovertemplate="%{customdata[0]:,} rows, seed %{customdata[1]}<br>"
        "%{x:,.0f} tokens: %{y:.3f}<extra></extra>",
    )


def _forecasts(ahead: Sequence[Forecast]) -> go.Scatter:
    return go.Scatter(
        x=[each.num_tokens for each in ahead],
        y=[each.nats_per_token for each in ahead],
        customdata=[
            (each.factor, each.interval.low, each.interval.high, each.gain) for each in ahead
        ],
        mode="markers",
        marker=marker("heldout", size=10, symbol="diamond", ring=True),
        hovertemplate="%{customdata[0]:g} times the data: %{y:.3f} "
        "(%{customdata[1]:.3f} to %{customdata[2]:.3f}), "
        "lower by %{customdata[3]:.3f}<extra></extra>",
    )


def _mean_sizes(points: Sequence[CurvePoint]) -> list[float]:
    """Mean tokens of the trainings on each fraction of the data."""
    sizes: dict[float, list[int]] = {}
    for point in points:
        sizes.setdefault(point.fraction, []).append(point.num_tokens)
    return [fmean(each) for each in sizes.values()]
