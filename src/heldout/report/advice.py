"""The page of an advice: the plan in the picture of the law, and what twice of each would bring."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from heldout.core.files import write_text
from heldout.core.results.advice import Advice
from heldout.core.results.learning_curve import LearningCurve
from heldout.report import palette, words
from heldout.report.chart import Chart, Key, blank, horizontal, line, log_axis, marker
from heldout.report.isoloss import isoloss_lines
from heldout.report.page import render_page

LOSS_WORDS = {"nats-per-token": "nats per token", "bits-per-byte": "bits per byte"}


@dataclass(frozen=True)
class Picture:
    """Losses (len(D), len(N)), None where the law knows nothing; and the ranges of its runs."""

    N: list[float]
    D: list[float]
    loss: list[list[float | None]]
    N_range: tuple[float, float]
    D_range: tuple[float, float]
    U: float
    longest: float  # tokens seen that the law can know of


def write_advice(advice: Advice, picture: Picture | None, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_advice(advice, picture))


def render_advice(advice: Advice, picture: Picture | None) -> str:
    charts = []
    if picture is not None:
        charts.append(plan_chart(advice, picture))
    if advice.learning_curve is not None:
        charts.append(forecast_chart(advice.learning_curve))
    return render_page(
        "advice.html.j2",
        charts,
        title="What to train",
        shown=advice,
        unit=LOSS_WORDS[advice.loss_unit],
        headline=_headline(advice),
    )


def _headline(advice: Advice) -> str:
    plan = advice.plan
    if plan is None:
        if advice.fine_tuning is not None:
            return f"Fine-tune with the recipe {advice.fine_tuning.recipe}"
        return advice.learning_curve.sentence if advice.learning_curve else "No law applies here"
    guess = "A guess: " if plan.guesses else ""
    text = (
        f"{guess}{words.short(plan.N)} parameters, {words.short(plan.D)} tokens, "
        f"{words.short(plan.epochs)} epochs: loss {words.number(plan.loss)}"
    )
    if plan.low is not None and plan.high is not None:
        text += f" ({words.number(plan.low)} to {words.number(plan.high)})"
    return text


def plan_chart(advice: Advice, picture: Picture) -> Chart:
    """Lines of equal loss with the plan, and the range of the runs shaded."""
    assert advice.plan is not None
    height = 440
    figure = blank(height)
    (low_N, high_N), (low_D, high_D) = picture.N_range, picture.D_range
    figure.add_shape(
        type="rect",
        x0=low_N,
        x1=high_N,
        y0=low_D,
        y1=high_D,
        fillcolor=palette.light("zone"),
        line={"width": 0},
        layer="below",
    )
    figure.add_trace(isoloss_lines(picture.N, picture.D, picture.loss, connectgaps=False))
    horizontal(figure, picture.U, "base")
    legend = [
        Key("Equal loss", "heldout"),
        Key("Range of the runs", "zone", "band"),
        Key("One epoch of your data", "base", "dot"),
    ]
    marks = [("Plan", "kept", "diamond", advice.plan)]
    if advice.serving is not None:
        marks.append(("Cheapest to train and serve", "run2", "cross", advice.serving.training))
    for label, token, symbol, training in marks:
        figure.add_trace(
            go.Scatter(
                x=[training.N],
                y=[training.D],
                mode="markers",
                marker=marker(
                    token, size=14, symbol="x" if symbol == "cross" else symbol, ring=True
                ),
                hovertemplate=f"{label}: %{{x:.3~e}} parameters, %{{y:.3~e}} tokens<extra></extra>",
            )
        )
        legend.append(Key(label, token, symbol))
    figure.update_xaxes(title_text="parameters (logarithmic)", **log_axis(picture.N))
    figure.update_yaxes(title_text="tokens seen", **log_axis(picture.D))
    return Chart(
        "isoloss",
        "Equal loss, and the plan",
        figure,
        f"Loss that the law predicts, {LOSS_WORDS[advice.loss_unit]}",
        f"Contour chart of the predicted loss over parameters and tokens, with the plan at "
        f"{words.short(advice.plan.N)} parameters and {words.short(advice.plan.D)} tokens.",
        "Only within the shaded range has the law been measured; elsewhere it guesses. No lines "
        "are drawn where it knows nothing: too many epochs.",
        height,
        tuple(legend),
    )


def forecast_chart(found: LearningCurve) -> Chart:
    """Held-out loss over training data, with the forecasts."""
    height = 380
    figure = blank(height)
    xs = [point.num_tokens for point in found.points]
    far = max(each.num_tokens for each in found.forecasts)
    low = min(xs)
    steps = [low * (far / low) ** (step / 60) for step in range(61)]
    figure.add_trace(
        go.Scatter(
            x=steps,
            y=[round(found.at(x), 5) for x in steps],
            mode="lines",
            line=line("heldout"),
            hovertemplate="%{x:.3~s} tokens<br>%{y:.3f}<extra>curve</extra>",
        )
    )
    figure.add_trace(_dots(xs, [point.nats_per_token for point in found.points]))
    figure.add_trace(
        go.Scatter(
            x=[each.num_tokens for each in found.forecasts],
            y=[each.nats_per_token for each in found.forecasts],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [each.interval.high - each.nats_per_token for each in found.forecasts],
                "arrayminus": [each.nats_per_token - each.interval.low for each in found.forecasts],
                "color": palette.light("kept"),
            },
            mode="markers",
            marker=marker("kept", size=11, symbol="diamond"),
            hovertemplate="%{x:.3~s} tokens<br>%{y:.3f}<extra>forecast</extra>",
        )
    )
    figure.update_xaxes(title_text="training tokens (logarithmic)", **log_axis([*xs, far]))
    return Chart(
        "learning-curve",
        "Is more data worth it?",
        figure,
        "Held-out loss in nats per token, each run at its own best epoch",
        f"Learning curve of {words.count(len(found.points), 'training')}. {found.sentence}",
        f"{found.sentence} Bars are 95 % intervals over held-out groups and seeds.",
        height,
        (
            Key("One training", "train_dots", "dots"),
            Key("Fitted curve", "heldout"),
            Key("Forecast", "kept", "diamond"),
        ),
    )


def _dots(xs: Sequence[float], ys: Sequence[float]) -> go.Scatter:
    return go.Scatter(
        x=list(xs),
        y=[round(y, 5) for y in ys],
        mode="markers",
        marker=marker("train_dots", size=7),
        hovertemplate="%{x:.3~s} tokens<br>%{y:.3f}<extra>measured</extra>",
    )
