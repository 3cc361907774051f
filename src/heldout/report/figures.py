"""The figures of a report, each a pure function from typed values to a Chart.

Every number is computed before it comes here; nothing but drawing is done.
"""

from collections.abc import Sequence

from heldout.core.run_files import FoldCurve, HistoryEntry, RateSearch
from heldout.report import words
from heldout.report.chart import (
    Axis,
    Chart,
    Figure,
    Key,
    Mark,
    Rule,
    Table,
    band,
    epoch_axis,
    padded,
    table_of,
    thinned,
)

MAX_POINTS = 200  # of a curve: more make the page heavy and are not seen
AT_EPOCH = "epoch %{x}\n%{y}"
LOSS = "Loss in nats per token; lower is better"


def loss_curves(
    history: Sequence[HistoryEntry], control: Sequence[HistoryEntry], kept: HistoryEntry | None
) -> Chart:
    """Training and validation loss over epochs on one axis, with the checkpoint that was kept."""
    start = history[0]
    base = start.validation_nll if start.step == 0 else None
    area = _validation_band(history)
    own = _curves(history, "", "solid")
    others = _curves(control, "no regularization", "dash")
    legend = [Key(curve.name, curve.token) for curve in own]
    legend += [_band_key()] if area else []
    legend += [Key(curve.name, curve.token, curve.dash) for curve in others]
    rules, ends = [], []
    if base is not None:
        rules.append(Rule("base", y=base))
        legend.append(Key("Base model's validation loss", "base", "dot"))
    if kept is not None and kept.validation_nll is not None:
        rules.append(Rule("kept", x=kept.epoch, label="kept"))
        ends.append(kept_mark(kept.epoch, kept.validation_nll, kept.step))
        legend.append(Key("Kept checkpoint", "kept", "diamond"))
    return Chart(
        "loss-curves",
        "Training and validation loss",
        Figure(
            epoch_axis(max(e.epoch for e in (*history, *control))),
            Axis(),
            [*area, *others, *own, *ends],
            rules,
        ),
        LOSS,
        _curves_in_words(history, kept),
        "Where validation turns up while training keeps falling, the model learns its training "
        "rows by heart. Both losses are measured without dropout, penalties or smoothing.",
        table_of("epoch", [*own, *others]),
        400,
        tuple(legend),
    )


def rate_search(search: RateSearch) -> Chart:
    """Validation loss after a short run at each learning rate."""
    ended = [t for t in search.trials if not t.diverged]
    good = [(t.learning_rate, t.validation_nll) for t in ended if not t.stopped_early]
    lost = [(t.learning_rate, t.validation_nll) for t in ended if t.stopped_early]
    values = [nll for _, nll in good + lost if nll is not None]
    low, high = padded(min(values), max(values)) if values else (0.0, 1.0)
    diverged = [t.learning_rate for t in search.trials if t.diverged]
    chosen = dict(good).get(search.chosen) if search.chosen is not None else None
    marks, legend = [], []
    if good:
        marks.append(
            Mark(
                [rate for rate, _ in good],
                [nll for _, nll in good],
                "heldout",
                hover="learning rate %{x}\nvalidation %{y}",
                dash="solid",
                symbol="circle",
                size=8,
            )
        )
        legend.append(Key("Validation loss", "heldout"))
    for told, token, label, points in (
        ("stopped at %{y}", "base", "Stopped early", lost),
        ("diverged", "red", "Diverged", [(rate, high) for rate in diverged]),
    ):
        if points:
            marks.append(
                Mark(
                    [rate for rate, _ in points],
                    [nll for _, nll in points],
                    token,
                    hover=f"learning rate %{{x}}\n{told}",
                    symbol="cross",
                    size=11,
                )
            )
            legend.append(Key(label, token, "cross"))
    if search.chosen is not None and chosen is not None:
        marks.append(
            Mark([search.chosen], [chosen], "kept", symbol="diamond", size=15, has_ring=True)
        )
        legend.append(Key("Chosen", "kept", "diamond"))
    rates = [t.learning_rate for t in search.trials]
    best = f"{words.short(search.chosen)} was chosen" if search.chosen else "None was chosen"
    return Chart(
        "rate-search",
        "Learning-rate search",
        Figure(
            Axis(
                "learning rate (logarithmic)",
                is_log=True,
                low=min(rates) / 1.15,
                high=max(rates) * 1.15,
                ticks=[(rate, words.short(rate)) for rate in sorted(set(rates))],
            ),
            Axis(low=low, high=high + (high - low) * 0.08),
            marks,
        ),
        LOSS,
        f"{words.count(len(rates), 'learning rate')} tried, from {words.short(rates[0])} to "
        f"{words.short(rates[-1])}. {best}.",
        " ".join(_search_in_words(search)),
        _rate_table(search),
        300,
        tuple(legend),
    )


def _rate_table(search: RateSearch) -> Table:
    rows = []
    for trial in search.trials:
        if trial.diverged:
            outcome = "Diverged"
        elif trial.stopped_early:
            outcome = "Stopped early"
        else:
            outcome = "Chosen" if trial.learning_rate == search.chosen else ""
        loss = "" if trial.diverged else words.number(trial.validation_nll)
        rows.append((words.short(trial.learning_rate), loss, outcome))
    return Table(("Learning rate", "Validation loss", ""), rows)


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
    curve = validation.curve
    legend = [Key("Out-of-fold loss", "heldout")]
    area = _area([(p.epoch, p.low, p.high) for p in curve])
    legend += [_band_key()] if area else []
    losses = Mark(
        [p.epoch for p in curve],
        [p.validation_nll for p in curve],
        "heldout",
        name="Out-of-fold loss",
        hover=AT_EPOCH,
        dash="solid",
        symbol="circle",
        size=5,
    )
    best = next((p for p in curve if p.epoch == validation.best_epoch), None)
    rules, ends, where = [], [], ""
    if best is not None:
        rules.append(Rule("kept", x=best.epoch, label="chosen"))
        ends.append(kept_mark(best.epoch, best.validation_nll, None))
        legend.append(Key("Chosen number of epochs", "kept", "diamond"))
        where = f" Lowest at epoch {words.epoch(best.epoch)}: {words.number(best.validation_nll)}."
    return Chart(
        "fold-curve",
        f"Cross-validation over {validation.folds} folds",
        Figure(epoch_axis(max(p.epoch for p in curve)), Axis(), [*area, losses, *ends], rules),
        LOSS,
        f"Line chart of the out-of-fold loss over epochs.{where}",
        "Each document is judged by a model that was trained without it. The epoch where this "
        "curve is lowest was used for the final training on all documents.",
        table_of("epoch", [losses]),
        360,
        tuple(legend),
    )


def _curves(entries: Sequence[HistoryEntry], condition: str, dash: str) -> list[Mark]:
    """Training and validation loss, as far as they were measured."""
    found = []
    for label, token, values in (
        ("Training rows", "train", [e.train_nll for e in entries]),
        ("Validation", "heldout", [e.validation_nll for e in entries]),
    ):
        if any(value is not None for value in values):
            name = f"{label}, {condition}" if condition else label
            found.append(_curve(name, token, dash, entries, values))
    return found


def _curve(
    name: str,
    token: str,
    dash: str,
    entries: Sequence[HistoryEntry],
    values: Sequence[float | None],
) -> Mark:
    pairs = zip(entries, values, strict=True)
    kept = thinned([(e, value) for e, value in pairs if value is not None], MAX_POINTS)
    is_main = dash == "solid"
    return Mark(
        [e.epoch for e, _ in kept],
        [value for _, value in kept],
        token,
        name=name,
        hover="step %{step}, epoch %{x}\n%{y}%{interval}",
        details={
            "step": [words.integer(e.step) for e, _ in kept],
            "interval": ["" if token == "train" else _interval(e) for e, _ in kept],
        },
        dash=dash,
        width=2.4 if is_main else 1.6,
        symbol="circle" if len(kept) < 60 else "",
        size=5 if is_main else 4,
    )


def kept_mark(epoch: float, nll: float, step: int | None, token: str = "kept") -> Mark:
    """A diamond where the kept checkpoint was measured."""
    where = f"step {step}, " if step is not None else ""
    return Mark(
        [epoch],
        [nll],
        token,
        name="kept",
        hover=f"{where}epoch {words.epoch(epoch)}\n%{{y}}",
        symbol="diamond",
        size=15,
        has_ring=True,
    )


def _validation_band(history: Sequence[HistoryEntry]) -> list[Mark]:
    shown = thinned(history, MAX_POINTS)
    return _area([(e.epoch, e.validation_low, e.validation_high) for e in shown])


def _area(points: Sequence[tuple[float, float | None, float | None]]) -> list[Mark]:
    """The band of the points that have an interval, where two or more do."""
    known = [point for point in points if None not in point]
    xs, lows, highs = ([point[side] for point in known] for side in range(3))
    return [band(xs, lows, highs, "heldout_band")] if len(known) > 1 else []


def _interval(entry: HistoryEntry) -> str:
    if entry.validation_low is None or entry.validation_high is None:
        return ""
    return f" [{entry.validation_low:.3f}, {entry.validation_high:.3f}]"


def _band_key() -> Key:
    return Key("Its 95 % interval", "heldout_band", "band")


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
