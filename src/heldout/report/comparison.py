"""Several runs side by side: what may be compared, and the figures that compare it."""

from collections.abc import Sequence
from dataclasses import dataclass

from heldout.core.measurement import Interval
from heldout.core.run import Run
from heldout.report import palette, sections, tiles, words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Table, epoch_axis, shorten, thinned
from heldout.report.figures import AT_EPOCH, LOSS, kept_mark
from heldout.report.forest import ForestRow, forest
from heldout.report.sections import VerdictCard
from heldout.report.summary import RunSummary


@dataclass(frozen=True)
class ComparedRun:
    """One run in a comparison: its name here, its color, and its line of the table."""

    name: str
    key: Key
    summary: RunSummary
    headline: str
    verdicts: tuple[VerdictCard, ...]
    cells: tuple[str, ...]


MAX_POINTS = 600  # of all curves together
COLUMNS = ("Model", "Data", "Kept at", "Loss, kept", "Against base", "95 % interval", "Took")


def compared_runs(runs: Sequence[Run], summaries: Sequence[RunSummary]) -> list[ComparedRun]:
    """Runs in the order given; folders of one name are told apart by the folder above."""
    names = [summary.name for summary in summaries]
    made: list[ComparedRun] = []
    for index, (run, summary) in enumerate(zip(runs, summaries, strict=True)):
        name = summary.name
        if names.count(name) > 1:
            name = f"{run.folder.resolve().parent.name}/{name}"
        if [each.name for each in made].count(name):
            name = f"{name} ({index + 1})"
        token, dash = palette.run_style(index)
        made.append(
            ComparedRun(
                name,
                Key(name, token, dash),
                summary,
                sections.run_headline(summary),
                tuple(sections.verdict_cards(summary.verdict)),
                _cells(summary),
            )
        )
    return made


def caution(compared: Sequence[ComparedRun]) -> str:
    """Why losses of these runs cannot be set side by side; empty where they can."""
    tests = {_test_hash(run.summary) for run in compared}
    models = {run.summary.environment.get("model") for run in compared}
    kinds = {run.summary.unseen for run in compared}
    if len(tests) > 1 or None in tests or len(kinds) > 1:
        return (
            "These runs were not judged on the same sealed test part. Compare each with its own "
            "base model, not the losses with one another."
        )
    if len(models) > 1:
        return (
            "These runs start from different models. Nats per token depend on the tokenizer: "
            "compare losses only where the tokenizer is the same, else bits per byte."
        )
    return ""


def charts(compared: Sequence[ComparedRun]) -> list[Chart]:
    made = [_curves(compared), _gains(compared), _paired(compared)]
    return [chart for chart in made if chart is not None]


def _cells(summary: RunSummary) -> tuple[str, ...]:
    name = f"{summary.unseen}_nll_best"
    best, contrast = summary.measured.get(name), summary.contrast(name, "base")
    shown = {tile.label: tile.value for tile in tiles.run_tiles(summary)}
    return (
        str(summary.environment.get("model", "–")),
        str(summary.data.get("source", "–")),
        shown.get("Peaked at", shown.get("Lowest so far", "–")),
        words.number(best.value) if best else "–",
        words.signed(contrast.difference) if contrast else "–",
        words.interval(contrast.interval, sign=True) if contrast else "–",
        shown.get("Took", "–"),
    )


def _test_hash(summary: RunSummary) -> str | None:
    parts = summary.data.get("sha256_parts")
    if summary.is_cross_validated:
        return summary.data.get("sha256")
    return parts.get("test") if isinstance(parts, dict) else None


def _curves(compared: Sequence[ComparedRun]) -> Chart | None:
    drawn = [
        run for run in compared if any(e.validation_nll is not None for e in run.summary.history)
    ]
    if not drawn:
        return None
    curves = [_validation(run, max(12, MAX_POINTS // len(drawn))) for run in drawn]
    ends = [
        kept_mark(kept.epoch, kept.validation_nll, kept.step, token=run.key.token)
        for run in drawn
        if (kept := run.summary.kept) is not None and kept.validation_nll is not None
    ]
    last_epoch = max(e.epoch for run in drawn for e in run.summary.history)
    lows = [
        (e.validation_nll, run.name)
        for run in drawn
        if (e := run.summary.kept) is not None and e.validation_nll is not None
    ]
    lowest, name = min(lows, default=(None, "–"))
    return Chart(
        "validation-curves",
        "Validation loss of each run",
        Figure(epoch_axis(last_epoch), Axis(), [*curves, *ends]),
        LOSS,
        f"Line chart of the validation loss of {words.count(len(drawn), 'run')}. "
        f"Lowest: {name} with {words.number(lowest)}.",
        "The diamond marks the checkpoint that was kept. A curve that turns up after it shows "
        "overfitting.",
        _curves_table(drawn),
        400,
        tuple(run.key for run in drawn),
    )


def _validation(run: ComparedRun, most: int) -> Mark:
    """A run's validation loss, of at most that many points."""
    measured = [e for e in run.summary.history if e.validation_nll is not None]
    kept = thinned(measured, most)
    return Mark(
        [e.epoch for e in kept],
        [e.validation_nll for e in kept],
        run.key.token,
        name=shorten(run.name, 40),
        hover=AT_EPOCH,
        dash=run.key.mark,
        symbol="circle",
        size=5,
    )


def _curves_table(drawn: Sequence[ComparedRun]) -> Table:
    """Where each curve begins, is kept, and ends."""
    rows = []
    for run in drawn:
        seen = [e for e in run.summary.history if e.validation_nll is not None]
        shown = (seen[0], run.summary.kept, seen[-1])
        rows.append(
            (
                run.name,
                *(
                    f"{words.number(e.validation_nll)} (epoch {words.epoch(e.epoch)})" if e else ""
                    for e in shown
                ),
            )
        )
    return Table(("Run", "First", "Kept", "Last"), rows)


def _gains(compared: Sequence[ComparedRun]) -> Chart | None:
    rows = []
    for run in compared:
        contrast = run.summary.contrast(f"{run.summary.unseen}_nll_best", "base")
        if contrast is not None:
            rows.append(_row(run, contrast.difference, contrast.interval))
    if not rows:
        return None
    return forest(
        "gains",
        "Each run against its base model",
        "Loss on unseen text, kept minus base; nats per token with 95 % interval",
        "Left of zero, the run improved on its base model. Overlap of two intervals does not say "
        "whether the runs differ.",
        rows,
        null="no difference",
        min_effect=_min_effect(compared),
    )


def _paired(compared: Sequence[ComparedRun]) -> Chart | None:
    """Every run minus the first, document by document, where the documents are the same."""
    first, *others = compared
    if caution(compared):
        return None
    control = first.summary.documents.get(("best", first.summary.unseen))
    rows = []
    for run in others:
        losses = run.summary.documents.get(("best", run.summary.unseen))
        if control is None or losses is None or len(losses) != len(control):
            continue
        if (losses.num_tokens_D != control.num_tokens_D).any() or control.num_groups < 2:
            continue
        difference = losses.minus(control)
        rows.append(_row(run, difference.value, difference.interval))
    if not rows:
        return None
    return forest(
        "against-first",
        f"Each run against the first, {shorten(first.name, 48)}",
        "Loss on unseen text, kept minus kept; nats per token with 95 % interval",
        "The same documents, paired. Left of zero, the run beats the first one. With many runs, "
        "one in twenty such intervals misses by chance.",
        rows,
        null="no difference",
        min_effect=_min_effect(compared),
    )


def _row(run: ComparedRun, value: float, interval: Interval) -> ForestRow:
    return ForestRow(shorten(run.name, 28), value, interval, True, run.key.token)


def _min_effect(compared: Sequence[ComparedRun]) -> float:
    recipes = [run.summary.recipe for run in compared if run.summary.recipe is not None]
    return max((recipe.eval.min_effect for recipe in recipes), default=0.0)
