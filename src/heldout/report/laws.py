"""The page of a fitted scaling law: what it forecasts, how well, and what the runs cannot tell.

Every number is computed before it comes here; nothing but drawing is done.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from heldout.core.files import write_text
from heldout.report import palette, words
from heldout.report.chart import (
    Chart,
    Key,
    add_label,
    blank,
    horizontal,
    line,
    log_axis,
    marker,
    plain,
)
from heldout.report.isoloss import isoloss_lines
from heldout.report.page import render_page


@dataclass(frozen=True)
class ParameterRow:
    """One parameter with its interval; ``None`` where the runs set no bound."""

    name: str
    value: float
    low: float | None
    high: float | None
    unit: str
    meaning: str


@dataclass(frozen=True)
class RolloutRow:
    """One rolled-out forecast: the errors of all laws beyond a cut-off."""

    axis: str
    cutoff: float
    num_train: int
    num_test: int
    errors: dict[str, float]


@dataclass(frozen=True)
class Points:
    """The runs, one entry each."""

    N: list[float]
    D: list[float]
    epochs: list[float]
    loss: list[float]
    predicted: list[float]


@dataclass(frozen=True)
class Curve:
    label: str
    xs: list[float]
    losses: list[float]


@dataclass(frozen=True)
class Grid:
    """Losses (len(D), len(N))."""

    N: list[float]
    D: list[float]
    loss: list[list[float]]


@dataclass(frozen=True)
class LawsPage:
    """All that the page shows."""

    title: str
    law: str
    formula: str
    loss_unit: str
    counted: str
    num_runs: int
    rms: float
    objective: float
    delta: float
    certificate: str
    warnings: Sequence[str]
    parameters: Sequence[ParameterRow]
    interval_method: str
    rollouts: Sequence[RolloutRow]
    scores: dict[str, float]
    choice: str
    chosen: str
    fits: Sequence[tuple[str, float]]
    points: Points
    isoflop: Sequence[Curve]
    isoloss: Grid
    repetition: Sequence[Curve]


def write_laws(shown: LawsPage, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_laws(shown))


def render_laws(shown: LawsPage) -> str:
    charts = [fitted(shown), residuals(shown), isoflop(shown), isoloss(shown)]
    charts += [epochs(shown)] if shown.repetition else []
    charts.append(intervals(shown))
    return render_page(
        "laws.html.j2",
        charts,
        title=f"Scaling law of {shown.title}",
        shown=shown,
        laws=list(shown.rollouts[0].errors) if shown.rollouts else [],
        marks=[(row, min(row.errors.values())) for row in shown.rollouts],
        counted=shown.counted or "embeddings not said",
    )


def fitted(shown: LawsPage) -> Chart:
    """Observed against predicted loss."""
    height = 380
    figure = blank(height)
    points = shown.points
    low = min(*points.loss, *points.predicted) * 0.97
    high = max(*points.loss, *points.predicted) * 1.03
    figure.add_trace(
        go.Scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line=line("base", dash="dot"),
            hoverinfo="skip",
        )
    )
    figure.add_trace(_runs(points, points.predicted, points.loss))
    figure.update_xaxes(title_text="predicted loss", showgrid=True)
    figure.update_yaxes(title_text="observed")
    return Chart(
        "fit",
        "Fit against observed",
        figure,
        f"Held-out loss in {shown.loss_unit}",
        f"Scatter chart of {words.count(shown.num_runs, 'run')}: observed against predicted loss. "
        f"Typical error {words.number(100 * shown.rms, 1)} %.",
        "Runs on the dotted line are predicted exactly. These runs were fitted: the forecasts "
        "below are the harder test.",
        height,
        (Key("One run", "train_dots", "dots"), Key("Exact", "base", "dot")),
    )


def residuals(shown: LawsPage) -> Chart:
    """Percent by which the observed loss lies over the predicted, over compute."""
    height = 380
    figure = blank(height)
    points = shown.points
    flops = [6 * n * d for n, d in zip(points.N, points.D, strict=True)]
    percent = [
        100 * math.log(seen / said)
        for seen, said in zip(points.loss, points.predicted, strict=True)
    ]
    horizontal(figure, 0, "base")
    figure.add_trace(_runs(points, flops, percent, "%{x:.2~e} FLOPs<br>%{y:+.2f} %"))
    figure.update_xaxes(title_text="training compute in FLOPs", **log_axis(flops))
    figure.update_yaxes(ticksuffix=" %")
    return Chart(
        "residuals",
        "Residuals",
        figure,
        "Observed over predicted loss, in percent",
        f"Scatter chart of residuals over compute, from {min(percent):.1f} to {max(percent):.1f} "
        "percent.",
        "A trend or a bend here is structure that the law misses, and it grows beyond the runs.",
        height,
        (Key("One run", "train_dots", "dots"),),
    )


def isoflop(shown: LawsPage) -> Chart:
    """Loss over model size at fixed compute."""
    figure, legend = _curves(shown.isoflop, 400, "%{x:.2~e} parameters<br>loss %{y:.3f}")
    for index, curve in enumerate(shown.isoflop):
        at = min(range(len(curve.losses)), key=curve.losses.__getitem__)
        if 0 < at < len(curve.losses) - 1:
            figure.add_trace(
                go.Scatter(
                    x=[curve.xs[at]],
                    y=[curve.losses[at]],
                    mode="markers",
                    marker=marker(palette.run_style(index)[0], size=11, symbol="diamond"),
                    hovertemplate="best: %{x:.2~e} parameters<extra></extra>",
                )
            )
    xs = [x for curve in shown.isoflop for x in curve.xs] or [1.0, 10.0]
    figure.update_xaxes(title_text="parameters (logarithmic)", **log_axis(xs))
    return Chart(
        "isoflop",
        "IsoFLOP curves",
        figure,
        f"Predicted loss in {shown.loss_unit}, every token new, at fixed compute C = 6 N D",
        "Line chart of the predicted loss over model size at "
        f"{words.count(len(shown.isoflop), 'compute budget')}.",
        "The diamond marks the best model for that compute. Where a curve is flat, a model half "
        "or twice the size costs next to nothing.",
        400,
        tuple([*legend, Key("Best size", "ink", "diamond")] if legend else legend),
    )


def isoloss(shown: LawsPage) -> Chart:
    """Lines of equal loss over model size and tokens."""
    height = 400
    figure = blank(height)
    grid = shown.isoloss
    figure.add_trace(isoloss_lines(grid.N, grid.D, grid.loss))
    figure.add_trace(_runs(shown.points, shown.points.N, shown.points.D))
    figure.update_xaxes(title_text="parameters (logarithmic)", **log_axis(grid.N))
    figure.update_yaxes(title_text="tokens", **log_axis(grid.D))
    return Chart(
        "isoloss",
        "IsoLoss lines",
        figure,
        f"Predicted loss in {shown.loss_unit}, every token new",
        "Contour chart of the predicted loss over parameters and tokens, with the runs as points.",
        "Along a line, parameters are traded for tokens at equal loss. Far from all points the "
        "lines are a guess.",
        height,
        (Key("Equal loss", "heldout"), Key("One run", "train_dots", "dots")),
    )


def epochs(shown: LawsPage) -> Chart:
    """Loss over epochs of few unique tokens."""
    figure, legend = _curves(shown.repetition, 380, "%{x:.3~g} epochs<br>loss %{y:.3f}")
    xs = [x for curve in shown.repetition for x in curve.xs]
    figure.update_xaxes(title_text="epochs (logarithmic)", **log_axis(xs))
    return Chart(
        "epochs",
        "Repeating the same tokens",
        figure,
        f"Predicted loss in {shown.loss_unit}",
        "Line chart of the predicted loss over epochs for "
        f"{words.count(len(shown.repetition), 'model size')}.",
        "Where a curve is lowest, more epochs stop helping. A law that cannot show overfitting "
        "never turns up.",
        380,
        tuple(legend),
    )


def intervals(shown: LawsPage) -> Chart:
    """Each parameter's interval as a multiple of its estimate."""
    rows = [row for row in shown.parameters if row.value > 0]
    height = 52 + 58 * len(rows)
    figure = blank(height)
    reach = 1.0
    for row in rows:
        for end in (row.low, row.high):
            if end:
                reach = max(reach, abs(math.log10(end / row.value)))
    reach = min(max(reach * 1.1, 0.1), 4.0)
    for place, row in enumerate(rows):
        ends = [
            (math.copysign(reach, side) if not end else _clip(math.log10(end / row.value), reach))
            for end, side in ((row.low, -1.0), (row.high, 1.0))
        ]
        is_open = row.low is None or row.high is None
        add_label(
            figure, place, f"<b>{plain(row.name)}</b> {words.short(row.value)} [{range_words(row)}]"
        )
        figure.add_trace(
            go.Scatter(
                x=[10**end for end in ends],
                y=[place, place],
                mode="lines",
                line=line(
                    "heldout" if is_open else "train", width=3, dash="dot" if is_open else "solid"
                ),
                hoverinfo="skip",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[1],
                y=[place],
                mode="markers",
                marker=marker("heldout" if is_open else "train", size=10, symbol="square"),
                hovertemplate=f"{plain(row.name)}: {words.short(row.value)}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text="multiple of the estimate", **log_axis([10**-reach, 10**reach]))
    figure.update_yaxes(range=[len(rows) - 0.6, -0.8], showticklabels=False, showgrid=False)
    return Chart(
        "intervals",
        "What the runs say of each parameter",
        figure,
        f"95 % intervals ({shown.interval_method}) as multiples of the estimate",
        "Intervals: " + "; ".join(f"{row.name} {range_words(row)}" for row in rows) + ".",
        "Short is well known. A dotted line is a parameter that these runs leave without a bound.",
        height,
        (Key("Bounded", "train"), Key("No bound", "heldout", "dot")),
    )


def range_words(row: ParameterRow) -> str:
    """``0.3 to 0.4``, with words where there is no bound."""
    if row.low is None and row.high is None:
        return "any value"
    low = "0" if row.low is None else words.short(row.low)
    return f"{low} to {words.short(row.high)}" if row.high is not None else f"over {low}"


def _clip(value: float, reach: float) -> float:
    return max(-reach, min(reach, value))


def _runs(
    points: Points,
    xs: Sequence[float],
    ys: Sequence[float],
    hover: str = "%{x:.3~g}, %{y:.3~g}",
) -> go.Scatter:
    return go.Scatter(
        x=list(xs),
        y=list(ys),
        mode="markers",
        marker=marker("train_dots", size=6),
        customdata=[
            [f"{n:.3g}", f"{d:.3g}", f"{e:.3g}"]
            for n, d, e in zip(points.N, points.D, points.epochs, strict=True)
        ],
        hovertemplate=hover
        + "<br>%{customdata[0]} parameters, %{customdata[1]} tokens, %{customdata[2]} epochs"
        "<extra></extra>",
    )


def _curves(curves: Sequence[Curve], height: int, hover: str) -> tuple[go.Figure, list[Key]]:
    figure, legend = blank(height), []
    for index, curve in enumerate(curves):
        token, dash = palette.run_style(index)
        figure.add_trace(
            go.Scatter(
                x=curve.xs,
                y=[round(value, 5) for value in curve.losses],
                mode="lines",
                line=line(token, dash=dash),
                hovertemplate=hover + f"<extra>{plain(curve.label)}</extra>",
            )
        )
        legend.append(Key(curve.label, token, dash))
    return figure, legend
