"""The figures of a report, each a pure function from typed values to a Chart.

Every number is computed before it comes here; nothing but drawing is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from heldout.core.measurement import TOO_FEW, Interval
from heldout.core.run_files import FoldCurve, HistoryEntry, RateSearch
from heldout.report import palette, words
from heldout.report.chart import (
    Chart,
    Key,
    add_label,
    anchor,
    band,
    blank,
    epoch_axis,
    horizontal,
    line,
    marker,
    padded,
    plain,
    vertical,
)

LOSS = "Loss in nats per token; lower is better"


@dataclass(frozen=True)
class ForestRow:
    """An estimate with its interval; the one that matters most is ``strong``."""

    label: str
    value: float
    interval: Interval | None
    strong: bool = False
    token: str = "ink"


def loss_curves(
    history: Sequence[HistoryEntry], control: Sequence[HistoryEntry], kept: HistoryEntry | None
) -> Chart:
    """Training and validation loss over epochs on one axis, with the checkpoint that was kept."""
    height = 400
    figure = blank(height)
    legend = []
    banded = [e for e in history if e.validation_low is not None and e.validation_high is not None]
    if len(banded) > 1:
        lows = [e.validation_low for e in banded]
        highs = [e.validation_high for e in banded]
        figure.add_trace(band([e.epoch for e in banded], lows, highs, "heldout_band"))
    start = history[0]
    base = start.validation_nll if start.step == 0 else None
    if base is not None:
        horizontal(figure, base, "base")
    for entries, condition, dash in (
        (control, "no regularization", "dash"),
        (history, "", "solid"),
    ):
        for label, token, values in (
            ("Training rows", "train", [e.train_nll for e in entries]),
            ("Validation", "heldout", [e.validation_nll for e in entries]),
        ):
            if any(value is not None for value in values):
                name = f"{label}, {condition}" if condition else label
                figure.add_trace(_curve(name, token, dash, entries, values))
                legend.append(Key(name, token, dash))
    legend = [key for key in legend if key.mark == "solid"] + [
        key for key in legend if key.mark != "solid"
    ]
    if len(banded) > 1:
        legend.insert(len([k for k in legend if k.mark == "solid"]), _band_key())
    if base is not None:
        legend.append(Key("Base model's validation loss", "base", "dot"))
    if kept is not None and kept.validation_nll is not None:
        vertical(figure, kept.epoch, "kept", "kept", "center")
        figure.add_trace(kept_mark(kept.epoch, kept.validation_nll, kept.step))
        legend.append(Key("Kept checkpoint", "kept", "diamond"))
    epoch_axis(figure, max(e.epoch for e in (*history, *control)))
    figure.update_yaxes(tickformat=".2f")
    return Chart(
        "loss-curves",
        "Training and validation loss",
        figure,
        LOSS,
        _curves_in_words(history, kept),
        "Where validation turns up while training keeps falling, the model learns its training "
        "rows by heart. Both losses are measured without dropout, penalties or smoothing.",
        height,
        tuple(legend),
    )


def forest(
    name: str,
    title: str,
    unit: str,
    reading: str,
    rows: Sequence[ForestRow],
    *,
    null: str = "",
    min_effect: float = 0.0,
) -> Chart:
    """Estimates with intervals below one another; ``null`` names zero and the zone around it."""
    is_signed = bool(null)
    ends = [end for row in rows for end in _ends(row)]
    ends += [-min_effect, min_effect] if null else []
    low, high = padded(min(ends), max(ends), 0.08)
    height = 52 + 62 * len(rows)
    figure = blank(height)
    if null:
        vertical(figure, 0, "base", null, anchor(0, low, high))
        if min_effect:
            figure.add_shape(
                type="rect",
                x0=-min_effect,
                x1=min_effect,
                y0=0,
                y1=1,
                yref="paper",
                layer="below",
                line={"width": 0},
                fillcolor=palette.light("zone"),
            )
    for place, row in enumerate(rows):
        bounds = row.interval
        value = words.signed(row.value) if is_signed else words.number(row.value)
        limits = words.interval(bounds, sign=is_signed).replace(" to ", ", ")
        limits = f" [{limits}]" if limits else ""
        if bounds is not None and bounds.is_withheld:
            limits, bounds = f" ({TOO_FEW})", None
        label = plain(row.label)
        add_label(figure, place, f"{f'<b>{label}</b>' if row.strong else label}<br>{value}{limits}")
        if bounds is not None:
            figure.add_trace(
                go.Scatter(
                    x=[bounds.low, bounds.high],
                    y=[place, place],
                    mode="lines",
                    line=line(row.token, width=3.2 if row.strong else 2),
                    hoverinfo="skip",
                )
            )
        figure.add_trace(
            go.Scatter(
                x=[row.value],
                y=[place],
                mode="markers",
                marker=marker(row.token, size=13 if row.strong else 10, symbol="square"),
                hovertemplate=f"{label}: {value}{limits}<extra></extra>",
            )
        )
    figure.update_xaxes(nticks=5, showgrid=True, tickformat="~g", range=[low, high])
    figure.update_yaxes(range=[len(rows) - 0.72, -0.78], showticklabels=False, showgrid=False)
    return Chart(
        name,
        title,
        figure,
        unit,
        f"{title}. " + "; ".join(_row_in_words(row, is_signed) for row in rows) + ".",
        reading,
        height,
        (Key("Too small to matter", "zone", "band"),) if null and min_effect else (),
    )


def rate_search(search: RateSearch) -> Chart:
    """Validation loss after a short run at each learning rate."""
    height = 300
    figure = blank(height)
    ended = [t for t in search.trials if not t.diverged]
    good = [(t.learning_rate, t.validation_nll) for t in ended if not t.stopped_early]
    lost = [(t.learning_rate, t.validation_nll) for t in ended if t.stopped_early]
    values = [nll for _, nll in good + lost if nll is not None]
    low, high = padded(min(values), max(values)) if values else (0.0, 1.0)
    legend = []
    if good:
        figure.add_trace(
            go.Scatter(
                x=[rate for rate, _ in good],
                y=[nll for _, nll in good],
                mode="lines+markers",
                line=line("heldout"),
                marker=marker("heldout", size=8),
                hovertemplate="learning rate %{x}<br>validation %{y:.3f}<extra></extra>",
            )
        )
        legend.append(Key("Validation loss", "heldout"))
    if lost:
        figure.add_trace(
            go.Scatter(
                x=[rate for rate, _ in lost],
                y=[nll for _, nll in lost],
                mode="markers",
                marker=marker("base", size=11, symbol="x"),
                hovertemplate="learning rate %{x}<br>stopped at %{y:.3f}<extra></extra>",
            )
        )
        legend.append(Key("Stopped early", "base", "cross"))
    diverged = [t.learning_rate for t in search.trials if t.diverged]
    if diverged:
        figure.add_trace(
            go.Scatter(
                x=diverged,
                y=[high] * len(diverged),
                mode="markers",
                marker=marker("red", size=11, symbol="x"),
                hovertemplate="learning rate %{x}: diverged<extra></extra>",
                cliponaxis=False,
            )
        )
        legend.append(Key("Diverged", "red", "cross"))
    chosen = dict(good).get(search.chosen) if search.chosen is not None else None
    if search.chosen is not None and chosen is not None:
        figure.add_trace(
            go.Scatter(
                x=[search.chosen],
                y=[chosen],
                mode="markers",
                marker=marker("kept", size=15, symbol="diamond", ring=True),
                hoverinfo="skip",
            )
        )
        legend.append(Key("Chosen", "kept", "diamond"))
    rates = [t.learning_rate for t in search.trials]
    figure.update_xaxes(
        title_text="learning rate (logarithmic)",
        type="log",
        tickvals=rates,
        ticktext=[words.short(rate) for rate in rates],
        showgrid=True,
    )
    figure.update_yaxes(range=[low, high + (high - low) * 0.08], tickformat=".2f")
    best = f"{words.short(search.chosen)} was chosen" if search.chosen else "None was chosen"
    return Chart(
        "rate-search",
        "Learning-rate search",
        figure,
        LOSS,
        f"{words.count(len(rates), 'learning rate')} tried, from {words.short(rates[0])} to "
        f"{words.short(rates[-1])}. {best}.",
        " ".join(_search_in_words(search)),
        height,
        tuple(legend),
    )


def _search_in_words(search: RateSearch) -> list[str]:
    said = ["A short run at each rate."]
    if any(trial.stopped_early for trial in search.trials):
        said.append(
            "One that could surely not end lower than the best so far was stopped, and shows its "
            "loss there."
        )
    if search.chosen is not None:
        said.append("The lowest was used for the training proper.")
    if search.handed_on:
        steps = words.count(search.handed_on, "step")
        said.append(f"Its {steps} are the first of the training that follows, not done again.")
    apart = sum(trial.steps for trial in search.trials) - search.handed_on
    said.append(f"Beside that training the search took {words.count(apart, 'step')}.")
    return said


def fold_curve(validation: FoldCurve) -> Chart:
    """Out-of-fold loss over epochs, each document judged by a model that never saw it."""
    height = 360
    figure = blank(height)
    curve = validation.curve
    legend = [Key("Out-of-fold loss", "heldout")]
    banded = [point for point in curve if point.low is not None and point.high is not None]
    if len(banded) > 1:
        lows, highs = [p.low for p in banded], [p.high for p in banded]
        figure.add_trace(band([p.epoch for p in banded], lows, highs, "heldout_band"))
        legend.append(_band_key())
    figure.add_trace(
        go.Scatter(
            x=[p.epoch for p in curve],
            y=[p.validation_nll for p in curve],
            mode="lines+markers",
            line=line("heldout"),
            marker=marker("heldout", size=5),
            hovertemplate="epoch %{x:.3~g}<br>out-of-fold %{y:.3f}<extra></extra>",
        )
    )
    best = next((p for p in curve if p.epoch == validation.best_epoch), None)
    where = ""
    if best is not None:
        vertical(figure, best.epoch, "kept", "chosen", "center")
        figure.add_trace(kept_mark(best.epoch, best.validation_nll, None))
        legend.append(Key("Chosen number of epochs", "kept", "diamond"))
        where = f" Lowest at epoch {words.epoch(best.epoch)}: {words.number(best.validation_nll)}."
    epoch_axis(figure, max(p.epoch for p in curve))
    figure.update_yaxes(tickformat=".2f")
    return Chart(
        "fold-curve",
        f"Cross-validation over {validation.folds} folds",
        figure,
        LOSS,
        f"Line chart of the out-of-fold loss over epochs.{where}",
        "Each document is judged by a model that was trained without it. The epoch where this "
        "curve is lowest was used for the final training on all documents.",
        height,
        tuple(legend),
    )


def _curve(
    name: str,
    token: str,
    dash: str,
    entries: Sequence[HistoryEntry],
    values: Sequence[float | None],
    width: float | None = None,
) -> go.Scatter:
    kept = [(e, value) for e, value in zip(entries, values, strict=True) if value is not None]
    is_main = dash == "solid"
    return go.Scatter(
        x=[round(e.epoch, 4) for e, _ in kept],
        y=[round(value, 5) for _, value in kept],
        mode="lines+markers" if len(kept) < 60 else "lines",
        line=line(token, width=width or (2.4 if is_main else 1.6), dash=dash),
        marker=marker(token, size=5 if is_main else 4),
        customdata=[[e.step, _band_words(e) if token != "train" else ""] for e, _ in kept],
        hovertemplate="step %{customdata[0]}, epoch %{x:.3~g}<br>%{y:.3f}%{customdata[1]}"
        f"<extra>{name}</extra>",
    )


def validation_curve(
    history: Sequence[HistoryEntry], name: str, token: str, dash: str
) -> go.Scatter:
    """A run's validation loss, to be laid over those of other runs; ``name`` must be plain."""
    return _curve(name, token, dash, history, [e.validation_nll for e in history], width=2.2)


def kept_mark(epoch: float, nll: float, step: int | None, token: str = "kept") -> go.Scatter:
    """A diamond where the kept checkpoint was measured."""
    where = f"step {step}, " if step is not None else ""
    return go.Scatter(
        x=[epoch],
        y=[nll],
        mode="markers",
        marker=marker(token, size=15, symbol="diamond", ring=True),
        cliponaxis=False,
        hovertemplate=f"{where}epoch {words.epoch(epoch)}<br>{nll:.3f}<extra>kept</extra>",
    )


def _band_key() -> Key:
    return Key("Its 95 % interval", "heldout_band", "band")


def _band_words(entry: HistoryEntry) -> str:
    if entry.validation_low is None or entry.validation_high is None:
        return ""
    return f" ({entry.validation_low:.3f} to {entry.validation_high:.3f})"


def _curves_in_words(history: Sequence[HistoryEntry], kept: HistoryEntry | None) -> str:
    text = "Line chart of training and validation loss over epochs."
    seen = [e for e in history if e.validation_nll is not None]
    if not seen:
        return text
    start, end = words.number(seen[0].validation_nll), words.number(seen[-1].validation_nll)
    if kept is None:
        return f"{text} Validation starts at {start} and ends at {end}."
    lowest = words.number(kept.validation_nll)
    return (
        f"{text} Validation starts at {start}, is lowest at epoch {words.epoch(kept.epoch)} with "
        f"{lowest}, and ends at {end}."
    )


def _ends(row: ForestRow) -> tuple[float, ...]:
    if row.interval is None or row.interval.is_withheld:
        return (row.value,)
    return (row.interval.low, row.value, row.interval.high)


def _row_in_words(row: ForestRow, is_signed: bool) -> str:
    show = words.signed if is_signed else words.number
    bounds = f" ({words.interval(row.interval, sign=is_signed)})" if row.interval else ""
    return f"{row.label}: {show(row.value)}{bounds}"
