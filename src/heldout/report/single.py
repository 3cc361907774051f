"""The figures of one run's report: which of them there are, and from which measurements."""

from dataclasses import replace

from heldout.core.measurement import Contrast
from heldout.core.search_space import USED, Point, in_words
from heldout.report import words
from heldout.report.chart import Chart, Table, some_of, thinned
from heldout.report.document_figures import BeforeAfter, before_after_dots, change_histogram
from heldout.report.figures import fold_curve, loss_curves, rate_search
from heldout.report.forest import ForestRow, forest
from heldout.report.summary import Ablation, RunSummary, Tuning

MAX_EVALUATIONS = 100  # in the table beside the curves
MOST_COMPARED = 8  # points that the chart of a search shows
SHORT = {"base": "Base", "best": "Kept (best)", "last": "Last", "fixed_epochs": "Fixed epochs"}


def curve_charts(summary: RunSummary) -> list[Chart]:
    """Cross-validation where there was one, and the training and validation curves."""
    charts = []
    if summary.cross_validation is not None and summary.cross_validation.curve:
        charts.append(fold_curve(summary.cross_validation))
    losses = [
        value
        for entry in (*summary.history, *summary.control_history)
        for value in (entry.train_nll, entry.validation_nll)
        if value is not None
    ]
    if len(losses) > 1 and summary.history:
        curves = loss_curves(summary.history, summary.control_history, summary.kept)
        charts.append(replace(curves, table=evaluations(summary)))
    return charts


def evaluations(summary: RunSummary) -> Table:
    """All evaluations, with the weights that were measured where an average was kept too."""
    history = summary.history
    shown = thinned(history, MAX_EVALUATIONS)
    if summary.kept is not None and summary.kept not in shown:
        shown = sorted([*shown, summary.kept], key=lambda entry: entry.step)
    columns = ["Step", "Epoch", "Training rows", "Validation", "95 % interval"]
    columns += ["Weights", "Not kept"] if summary.has_averages else []
    rows = []
    for entry in shown:
        has_band = entry.validation_low is not None and entry.validation_high is not None
        cells = [
            words.integer(entry.step),
            words.epoch(entry.epoch),
            words.number(entry.train_nll),
            words.number(entry.validation_nll),
            f"{words.number(entry.validation_low)} to {words.number(entry.validation_high)}"
            if has_band
            else "",
        ]
        if summary.has_averages:
            cells.append("averaged" if entry.weights == "average" else "raw")
            cells.append("" if entry.other_nll is None else words.number(entry.other_nll))
        is_kept = entry == summary.kept
        cells.append("kept" if is_kept else "base model" if entry.step == 0 else "")
        rows.append(cells)
    return Table([*columns, ""], rows, some_of(rows, history))


def document_charts(summary: RunSummary) -> list[Chart]:
    series = before_after(summary)
    return [before_after_dots(series), change_histogram(series)] if series else []


def before_after(summary: RunSummary) -> list[BeforeAfter]:
    """Training rows against unseen ones; nothing where the two models saw different documents."""
    pairs = [
        ("Training rows", "train", "train"),
        ("Unseen (out of fold)", "heldout", "out_of_fold")
        if summary.is_cross_validated
        else ("Unseen (sealed test)", "heldout", "test"),
    ]
    series = []
    for label, token, part in pairs:
        base = summary.documents.get(("base", part))
        best = summary.documents.get(("best", part))
        if base is not None and best is not None and len(base) == len(best):
            series.append(BeforeAfter(label, token, base, best))
    return series


def gap_charts(summary: RunSummary) -> list[Chart]:
    """Test losses, their paired differences, and held-out minus training loss."""
    unseen = "out-of-fold" if summary.is_cross_validated else "sealed-test"
    min_effect = summary.recipe.eval.min_effect if summary.recipe else 0.0
    charts = []
    levels = _model_rows(
        summary, f"{summary.unseen}_nll_", ("base", "fixed_epochs", "last", "best")
    )
    if levels:
        charts.append(
            forest(
                "unseen-losses",
                f"Loss on {unseen} text",
                "Nats per token with 95 % interval; further left is better",
                "Intervals may overlap although a difference is certain: all models are judged on "
                "the same documents, so trust the paired differences.",
                levels,
            )
        )
    differences = _differences(summary)
    if differences:
        charts.append(
            forest(
                "unseen-differences",
                "Paired differences",
                "Nats per token with 95 % interval; left of zero, the first named is better",
                "Each document is compared with itself. An interval that touches neither zero nor "
                "the gray zone is a difference that is real and matters.",
                differences,
                null="no difference",
                min_effect=min_effect,
            )
        )
    gaps = _model_rows(summary, "generalization_gap_", ("base", "last", "best"))
    if gaps:
        charts.append(
            forest(
                "gaps",
                "Generalization gap",
                "Unseen minus training loss, nats per token with 95 % interval",
                "What training gained on its own rows only. The base model shows how far the two "
                "sets of rows differ by themselves; what exceeds that is overfitting.",
                gaps,
                null="no gap",
            )
        )
    return charts


def search_charts(summary: RunSummary) -> list[Chart]:
    charts = [rate_search(summary.search)] if summary.search is not None else []
    if summary.tuning is not None:
        by_coordinates = summary.tuning.neighbors or not summary.tuning.compared
        draw = _certificate if by_coordinates else _compared_points
        charts.append(draw(summary.tuning))
    if summary.ablation is not None:
        charts.append(_ablation(summary.ablation))
    return charts


def _ablation(ablation: Ablation) -> Chart:
    """How much worse the recipe is without each of its parts."""
    rows = [
        ForestRow(
            f"without {_part_name(each.part)}",
            each.difference,
            each.interval,
            each.verdict == "pays",
            "kept" if each.verdict == "pays" else "ink",
        )
        for each in ablation.parts
        if each.difference is not None
    ]
    chart = forest(
        "ablation",
        "Each part of the recipe left out",
        "nats/token more on the validation part without it; right of the line, the part helps",
        f"{ablation.sentence} All were trained at the same learning rate, with one seed.",
        rows,
        null="as good",
    )
    return replace(chart, table=_ablation_table(ablation))


def _ablation_table(ablation: Ablation) -> Table:
    """Each part, what it costs to leave it out, the interval and the verdict."""
    rows = []
    for each in ablation.parts:
        more = "–" if each.difference is None else words.signed(each.difference)
        bounds = words.interval(each.interval, sign=True) if each.interval else ""
        rows.append((_part_name(each.part), more, bounds, each.verdict))
    for key in ablation.not_tried:
        rows.append((_part_name(key), "–", "", "not tried: it ends training, or acts after it"))
    return Table(("Left out", "Nats/token more", "95 % interval", "Verdict"), rows)


def _part_name(key: str) -> str:
    return key.partition(".")[2].replace("_", " ")


def _certificate(tuning: Tuning) -> Chart:
    """Every neighbor that was tried, against the chosen point."""
    rows, diverged = [], []
    for neighbor in tuning.neighbors:
        name = neighbor.coordinate.partition(".")[2].replace("_", " ").replace(".", " ")
        label = f"{name} {words.short(neighbor.value)}"
        if neighbor.difference is None:
            diverged.append(f"{label} diverged")
        else:
            label += f" in place of {words.short(float(tuning.chosen[neighbor.coordinate]))}"
            rows.append(ForestRow(label, neighbor.difference, neighbor.interval))
    return forest(
        "grid-search",
        "Neighbors of the chosen settings",
        "nats/token more on the validation part than the chosen settings",
        " ".join(
            [
                tuning.sentence,
                *(["What reaches the dashed line is not surely worse."] if rows else []),
                *(f"{each[0].upper()}{each[1:]}." for each in diverged),
            ]
        ),
        rows,
        null="as good",
    )


def _compared_points(tuning: Tuning) -> Chart:
    """The next lowest points of a search against the chosen one."""
    rows = [
        ForestRow(
            _of_seeds(_differing(each.point, tuning.chosen), each.num_seeds),
            each.difference,
            each.interval,
        )
        for each in tuning.compared[:MOST_COMPARED]
    ]
    return forest(
        "recipe-search",
        "Other settings that were tried",
        "nats/token more on the validation part than the chosen settings",
        f"{tuning.sentence} What reaches the dashed line is not surely worse.",
        rows,
        null="as good",
    )


def _differing(point: Point, chosen: Point) -> str:
    """Where a point differs from the chosen one, in words."""
    return in_words({_readable(k): v for k, v in point.items() if chosen.get(k) != v})


def _readable(key: str) -> str:
    """A key whose name has spaces."""
    section, _, name = key.partition(".")
    base = name.removesuffix(USED)
    return f"{section}.{base.replace('_', ' ').replace('.', ' ')}{name[len(base) :]}"


def _of_seeds(label: str, num_seeds: int) -> str:
    return f"{label} ({num_seeds} seeds)" if num_seeds > 1 else label


def _model_rows(summary: RunSummary, prefix: str, models: tuple[str, ...]) -> list[ForestRow]:
    rows = []
    for model in models:
        measured = summary.measured.get(prefix + model)
        if measured is not None:
            is_best = model == "best"
            token = "kept" if is_best else "ink"
            label = SHORT[model]
            rows.append(ForestRow(label, measured.value, measured.interval, is_best, token))
    return rows


def _differences(summary: RunSummary) -> list[ForestRow]:
    rows = []
    for model, control in (
        ("fixed_epochs", "base"),
        ("last", "base"),
        ("best", "base"),
        ("best", "last"),
        ("best", "fixed_epochs"),
    ):
        contrast = summary.contrast(f"{summary.unseen}_nll_{model}", control)
        if contrast is not None:
            is_best = model == "best"
            label = f"{SHORT[model].split(' (')[0]} − {words.model(control).split(',')[0].lower()}"
            rows.append(_contrast_row(label, contrast, is_best))
    return rows


def _contrast_row(label: str, contrast: Contrast, strong: bool) -> ForestRow:
    token = "kept" if strong else "ink"
    return ForestRow(label, contrast.difference, contrast.interval, strong, token)
