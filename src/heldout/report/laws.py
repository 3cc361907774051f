"""The page of a fitted scaling law: what it forecasts, how well, and what the runs cannot tell.

Every number is computed before it comes here; nothing but drawing is done.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heldout.core.files import write_text
from heldout.report import palette, words
from heldout.report.chart import (
    Axis,
    Chart,
    Figure,
    Key,
    Label,
    Mark,
    Rule,
    Table,
    log_axis,
    rows_axis,
    table_of,
    thinned,
)
from heldout.report.isoloss import isoloss_lines, isoloss_table
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
    points = shown.points
    low = min(*points.loss, *points.predicted) * 0.97
    high = max(*points.loss, *points.predicted) * 1.03
    return Chart(
        "fit",
        "Fit against observed",
        Figure(
            Axis("predicted loss", low=low, high=high),
            Axis("observed", low=low, high=high),
            [
                Mark([low, high], [low, high], "base", dash="dot"),
                _runs(points, points.predicted, points.loss, "%{x} predicted, %{y} observed"),
            ],
        ),
        f"Held-out loss in {shown.loss_unit}",
        f"Scatter chart of {words.count(shown.num_runs, 'run')}: observed against predicted loss. "
        f"Typical error {words.number(100 * shown.rms, 1)} %.",
        "Runs on the dotted line are predicted exactly. These runs were fitted: the forecasts "
        "below are the harder test.",
        _runs_table(points, ("Predicted", points.predicted), ("Observed", points.loss)),
        380,
        (Key("One run", "train_dots", "dots"), Key("Exact", "base", "dot")),
    )


def residuals(shown: LawsPage) -> Chart:
    """Percent by which the observed loss lies over the predicted, over compute."""
    points = shown.points
    flops = [6 * n * d for n, d in zip(points.N, points.D, strict=True)]
    percent = [
        100 * math.log(seen / said)
        for seen, said in zip(points.loss, points.predicted, strict=True)
    ]
    return Chart(
        "residuals",
        "Residuals",
        Figure(
            log_axis("training compute in FLOPs", flops),
            Axis(suffix=" %"),
            [_runs(points, flops, percent, "%{x} FLOPs\n%{y} %")],
            [Rule("base", y=0)],
        ),
        "Observed over predicted loss, in percent",
        f"Scatter chart of residuals over compute, from {min(percent):.1f} to {max(percent):.1f} "
        "percent.",
        "A trend or a bend here is structure that the law misses, and it grows beyond the runs.",
        _runs_table(points, ("FLOPs", flops), ("Residual, %", percent)),
        380,
        (Key("One run", "train_dots", "dots"),),
    )


def isoflop(shown: LawsPage) -> Chart:
    """Loss over model size at fixed compute."""
    marks, legend = _curves(shown.isoflop, "%{x} parameters\nloss %{y}")
    best = []
    for index, curve in enumerate(shown.isoflop):
        at = min(range(len(curve.losses)), key=curve.losses.__getitem__)
        if 0 < at < len(curve.losses) - 1:
            best.append(
                Mark(
                    [curve.xs[at]],
                    [curve.losses[at]],
                    palette.run_style(index)[0],
                    hover="best: %{x} parameters",
                    symbol="diamond",
                    size=11,
                )
            )
    xs = [x for curve in shown.isoflop for x in curve.xs] or [1.0, 10.0]
    return Chart(
        "isoflop",
        "IsoFLOP curves",
        Figure(log_axis("parameters (logarithmic)", xs), Axis(), [*marks, *best]),
        f"Predicted loss in {shown.loss_unit}, every token new, at fixed compute C = 6 N D",
        "Line chart of the predicted loss over model size at "
        f"{words.count(len(shown.isoflop), 'compute budget')}.",
        "The diamond marks the best model for that compute. Where a curve is flat, a model half "
        "or twice the size costs next to nothing.",
        table_of("parameters", marks),
        400,
        tuple([*legend, Key("Best size", "ink", "diamond")] if legend else legend),
    )


def isoloss(shown: LawsPage) -> Chart:
    """Lines of equal loss over model size and tokens."""
    grid = shown.isoloss
    lines, labels = isoloss_lines(grid.N, grid.D, grid.loss)
    runs = _runs(shown.points, shown.points.N, shown.points.D, "")
    return Chart(
        "isoloss",
        "IsoLoss lines",
        Figure(
            log_axis("parameters (logarithmic)", grid.N),
            log_axis("tokens", grid.D),
            [*lines, runs],
            labels=labels,
        ),
        f"Predicted loss in {shown.loss_unit}, every token new",
        "Contour chart of the predicted loss over parameters and tokens, with the runs as points.",
        "Along a line, parameters are traded for tokens at equal loss. Far from all points the "
        "lines are a guess.",
        isoloss_table(grid.N, grid.D, grid.loss),
        400,
        (Key("Equal loss", "heldout"), Key("One run", "train_dots", "dots")),
    )


def epochs(shown: LawsPage) -> Chart:
    """Loss over epochs of few unique tokens."""
    marks, legend = _curves(shown.repetition, "%{x} epochs\nloss %{y}")
    xs = [x for curve in shown.repetition for x in curve.xs]
    return Chart(
        "epochs",
        "Repeating the same tokens",
        Figure(log_axis("epochs (logarithmic)", xs), Axis(), marks),
        f"Predicted loss in {shown.loss_unit}",
        "Line chart of the predicted loss over epochs for "
        f"{words.count(len(shown.repetition), 'model size')}.",
        "Where a curve is lowest, more epochs stop helping. A law that cannot show overfitting "
        "never turns up.",
        table_of("epochs", marks),
        380,
        tuple(legend),
    )


def intervals(shown: LawsPage) -> Chart:
    """Each parameter's interval as a multiple of its estimate."""
    rows = [row for row in shown.parameters if row.value > 0]
    reach = 1.0
    for row in rows:
        for end in (row.low, row.high):
            if end:
                reach = max(reach, abs(math.log10(end / row.value)))
    reach = min(max(reach * 1.1, 0.1), 4.0)
    marks, labels = [], []
    for place, row in enumerate(rows):
        ends = [
            (math.copysign(reach, side) if not end else _clip(math.log10(end / row.value), reach))
            for end, side in ((row.low, -1.0), (row.high, 1.0))
        ]
        is_open = row.low is None or row.high is None
        token = "heldout" if is_open else "train"
        value = words.short(row.value)
        labels.append(
            Label(-place, row.name, value=f"{value} [{range_words(row)}]", is_strong=True)
        )
        marks += [
            Mark(
                [10**end for end in ends],
                [-place, -place],
                token,
                dash="dot" if is_open else "solid",
                width=3,
            ),
            Mark([1], [-place], token, symbol="square", size=10),
        ]
    return Chart(
        "intervals",
        "What the runs say of each parameter",
        Figure(
            log_axis("multiple of the estimate", [10**-reach, 10**reach]),
            rows_axis(len(rows)),
            marks,
            labels=labels,
        ),
        f"95 % intervals ({shown.interval_method}) as multiples of the estimate",
        "Intervals: " + "; ".join(f"{row.name} {range_words(row)}" for row in rows) + ".",
        "Short is well known. A dotted line is a parameter that these runs leave without a bound.",
        Table(
            ("", "Value", "Interval"),
            [(row.name, words.short(row.value), range_words(row)) for row in rows],
        ),
        52 + 62 * len(rows),
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


def _runs(points: Points, xs: Sequence[float], ys: Sequence[float], hover: str) -> Mark:
    what = "%{N} parameters, %{D} tokens, %{epochs} epochs"
    return Mark(
        xs,
        ys,
        "train_dots",
        hover=f"{hover}\n{what}" if hover else what,
        details={
            "N": [words.compact(n) for n in points.N],
            "D": [words.compact(d) for d in points.D],
            "epochs": [words.compact(each) for each in points.epochs],
        },
        symbol="circle",
        size=6,
    )


def _runs_table(points: Points, *columns: tuple[str, Sequence[float]]) -> Table:
    rows = zip(points.N, points.D, points.epochs, *(values for _, values in columns), strict=True)
    return Table(
        ("Parameters", "Tokens", "Epochs", *(name for name, _ in columns)),
        [tuple(map(words.compact, row)) for row in thinned(sorted(rows))],
    )


def _curves(curves: Sequence[Curve], hover: str) -> tuple[list[Mark], list[Key]]:
    marks, legend = [], []
    for index, curve in enumerate(curves):
        token, dash = palette.run_style(index)
        marks.append(Mark(curve.xs, curve.losses, token, curve.label, hover, dash=dash))
        legend.append(Key(curve.label, token, dash))
    return marks, legend
