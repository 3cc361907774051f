"""The page of an advice: the plan in the picture of the law, and what twice of each would bring."""

from dataclasses import dataclass
from pathlib import Path

from heldout.core.files import write_text
from heldout.core.results.advice import Advice
from heldout.core.results.learning_curve import LearningCurve
from heldout.report import words
from heldout.report.chart import (
    Axis,
    Chart,
    Figure,
    Key,
    Mark,
    Rule,
    Zone,
    bars,
    log_axis,
)
from heldout.report.isoloss import isoloss_lines, isoloss_table
from heldout.report.learning_curve import learning_table
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
    lines, labels = isoloss_lines(picture.N, picture.D, picture.loss)
    legend = [
        Key("Equal loss", "heldout"),
        Key("Range of the runs", "zone", "band"),
        Key("One epoch of your data", "base", "dot"),
    ]
    plans = [("Plan", "kept", "diamond", advice.plan)]
    if advice.serving is not None:
        plans.append(("Cheapest to train and serve", "run2", "cross", advice.serving.training))
    marks = []
    for label, token, symbol, training in plans:
        marks.append(
            Mark(
                [training.N],
                [training.D],
                token,
                name=label,
                hover="%{x} parameters, %{y} tokens",
                symbol=symbol,
                size=14,
                has_ring=True,
            )
        )
        legend.append(Key(label, token, symbol))
    return Chart(
        "isoloss",
        "Equal loss, and the plan",
        Figure(
            log_axis("parameters (logarithmic)", picture.N),
            log_axis("tokens seen", picture.D),
            [*lines, *marks],
            [Rule("base", y=picture.U)],
            [Zone(picture.N_range, picture.D_range)],
            labels,
        ),
        f"Loss that the law predicts, {LOSS_WORDS[advice.loss_unit]}",
        f"Contour chart of the predicted loss over parameters and tokens, with the plan at "
        f"{words.short(advice.plan.N)} parameters and {words.short(advice.plan.D)} tokens.",
        "Only within the shaded range has the law been measured; elsewhere it guesses. No lines "
        "are drawn where it knows nothing: too many epochs.",
        isoloss_table(picture.N, picture.D, picture.loss),
        440,
        tuple(legend),
    )


def forecast_chart(found: LearningCurve) -> Chart:
    """Held-out loss over training data, with the forecasts."""
    xs = [point.num_tokens for point in found.points]
    ahead = found.forecasts
    far, low = max(each.num_tokens for each in ahead), min(xs)
    steps = [low * (far / low) ** (step / 60) for step in range(61)]
    hover = "%{x} tokens\n%{y}"
    ends = [(each.interval.low, each.interval.high) for each in ahead]
    marks = [
        Mark(steps, [found.at(x) for x in steps], "heldout", "curve", hover, dash="solid"),
        Mark(
            xs,
            [point.nats_per_token for point in found.points],
            "train_dots",
            name="measured",
            hover=hover,
            symbol="circle",
            size=7,
        ),
        bars([each.num_tokens for each in ahead], ends, "kept"),
        Mark(
            [each.num_tokens for each in ahead],
            [each.nats_per_token for each in ahead],
            "kept",
            name="forecast",
            hover="%{x} tokens\n%{y} [%{low}, %{high}]",
            details={
                "low": [words.number(low) for low, _ in ends],
                "high": [words.number(high) for _, high in ends],
            },
            symbol="diamond",
            size=11,
        ),
    ]
    return Chart(
        "learning-curve",
        "Is more data worth it?",
        Figure(log_axis("training tokens (logarithmic)", [*xs, far]), Axis(), marks),
        "Held-out loss in nats per token, each run at its own best epoch",
        f"Learning curve of {words.count(len(found.points), 'training')}. {found.sentence}",
        f"{found.sentence} Bars are 95 % intervals over held-out groups and seeds.",
        learning_table(found),
        380,
        (
            Key("One training", "train_dots", "dots"),
            Key("Fitted curve", "heldout"),
            Key("Forecast", "kept", "diamond"),
        ),
    )
