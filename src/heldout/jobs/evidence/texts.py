"""The texts a diagnosis is made on: samples of what was trained on and of what was held out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.recipe import DataSection, Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.data.columns import read_rows, rows_from_table
from heldout.data.duplicates import with_copies_joined
from heldout.data.overlap import find_overlap, unrelated
from heldout.data.read import read_table
from heldout.data.stream import RowStream
from heldout.jobs.kit.parts import sample_rows


@dataclass(frozen=True)
class DiagnosedTexts:
    """Samples in the order of their source; ``all_train`` goes through every training row.

    Copies, exact or near, are of one group in each sample.
    """

    train: list[Row]
    heldout: list[Row]
    all_train: Callable[[], Iterable[Row]]
    num_train_rows: int
    domains: dict[str, list[Row]] = field(default_factory=dict)
    duplicate_share: float | None = None
    leak_share: float | None = None
    num_heldout_rows: int | None = None  # of which leak_share is a share
    copies: Mapping[int, int] = field(default_factory=dict)  # training row -> times it stands there
    warnings: tuple[str, ...] = ()
    prompts_meant: bool = False  # training was meant to score prompts, too
    labels_known: bool = False  # heldout itself trained on these rows, and scored the answers


def texts_of_run(
    run: Run,
    heldout: str,
    domains: Mapping[str, str],
    recipe: Recipe,
    most: int,
    open_test: bool = False,
) -> DiagnosedTexts:
    """The training rows of a run, and the rows of ``heldout`` that do not repeat them.

    Where ``heldout`` is empty: its sealed test, opened once more, which is recorded. Raises
    UserError where the run can still be resumed and has not measured it yet, unless ``open_test``.
    """
    about = run.read_json("data.json")
    rows = about["rows"]
    unseen: Iterable[Row]
    group = recipe.data.group or run.recipe.data.group
    leak_share, warnings = 0.0, []  # by the split, which keeps all that is related together
    num_heldout: int | None = None
    other, more = _read_domains(domains, group, recipe.data, most)  # before the seal is broken
    if heldout:
        data = recipe.data
        found = read_rows(heldout, data.columns, group, data=data, part="heldout")
        if found.kind != about["kind"]:
            raise UserError(
                f"--heldout {heldout} holds rows of kind {found.kind}, the run was trained on rows "
                f"of kind {about['kind']}: they must be the same."
            )
        threshold = recipe.data.near_duplicate_threshold
        unseen = unrelated(found.rows, list(run.read_rows("train")), threshold)
        num_left_out = len(found.rows) - len(unseen)
        num_heldout = len(found.rows)
        leak_share = num_left_out / num_heldout
        if num_left_out:
            warnings.append(_left_out(num_left_out))
    elif rows["test"]:
        if not open_test:
            _refuse_unfinished(run)
        unseen = run.open_test("diagnose")
    else:
        raise UserError(
            f"{run.folder} has no sealed test part (its data was too small to hold one out): give "
            "unseen rows with --heldout."
        )
    sampled = sample_rows(unseen, most, recipe.data.seed)
    if not sampled:
        raise UserError(f"--heldout {heldout}: all its rows stand in the training data.")
    return DiagnosedTexts(
        sample_rows(run.read_rows("train"), most, recipe.data.seed),
        with_copies_joined(sampled, recipe.data.near_duplicate_threshold) if heldout else sampled,
        lambda: run.read_rows("train"),
        rows["train"],
        other,
        duplicate_share=about["duplicates"] / max(1, rows["train"]),
        leak_share=leak_share,
        num_heldout_rows=num_heldout,
        warnings=(*warnings, *more),
        labels_known=True,
    )


def _refuse_unfinished(run: Run) -> None:
    """The test of a run that can be resumed is for its own end."""
    state = run.status["state"]
    if state != "complete" and not run.path("recitals.json").exists():
        raise UserError(
            f"{run.folder} is not finished ({state}) and has not opened its sealed test yet: go on "
            f"with heldout fit --resume {run.folder}, or give unseen rows with --heldout, or open "
            "the test all the same with --open-test."
        )


def _left_out(num: int) -> str:
    return (
        f"{num} held-out rows stand in the training data too: they are left out of every "
        "comparison."
    )


def texts_of_files(
    train: str,
    heldout: str,
    domains: Mapping[str, str],
    recipe: Recipe,
    most: int,
    progress: Progress,
) -> DiagnosedTexts:
    """Rows of two sources; held-out rows that stand in training are no control and are left out.

    Without ``heldout`` those are taken that lie beside the training rows. The sources are
    streamed; memory holds the samples. Raises UserError for an empty part.
    """
    data = recipe.data
    trained = RowStream(train, data.columns, data.group, data)
    unseen = RowStream(heldout or train, data.columns, data.group, data, "heldout")
    overlap = find_overlap(
        trained,
        unseen,
        threshold=data.near_duplicate_threshold,
        by_turns=not data.group,
        progress=progress,
    )
    for note in dict.fromkeys([*trained.notes(), *unseen.notes()]):
        progress.note(note)
    train_rows = sample_rows(trained.rows(), most, data.seed)
    heldout_rows = sample_rows(unseen.rows(), most, data.seed)
    if not train_rows or not heldout_rows:
        empty = trained if heldout_rows else unseen
        raise UserError(f"{empty.label} has no rows that can be measured.")
    if train_rows[0].kind != heldout_rows[0].kind:
        raise UserError(
            f"--heldout {unseen.label} holds rows of kind {heldout_rows[0].kind}, {train} rows of "
            f"kind {train_rows[0].kind}: they must be the same."
        )
    kept = [row for row in heldout_rows if row.index not in overlap.leaked]
    warnings = []
    if len(kept) < len(heldout_rows):
        out = len(heldout_rows) - len(kept)
        if len({row.group for row in kept}) >= 2:
            heldout_rows = kept
            warnings.append(_left_out(out))
        else:
            warnings.append("All held-out rows stand in the training data: there is no control.")
    other, more = _read_domains(domains, data.group, data, most)
    return DiagnosedTexts(
        with_copies_joined(train_rows, data.near_duplicate_threshold),
        with_copies_joined(heldout_rows, data.near_duplicate_threshold),
        trained.rows,
        overlap.num_train_rows,
        other,
        duplicate_share=overlap.duplicate_share,
        leak_share=overlap.leaked_share,
        num_heldout_rows=overlap.num_heldout_rows,
        copies=overlap.copies,
        warnings=(*warnings, *overlap.warnings, *more),
    )


def _read_domains(
    domains: Mapping[str, str], group: str, data: DataSection, most: int
) -> tuple[dict[str, list[Row]], list[str]]:
    """Other text by name, in groups by the column ``group`` where it has one, and warnings."""
    found, warnings = {}, []
    for name, source in domains.items():
        table = read_table(source, data)
        own = group if group in table.columns else ""
        if group and not own:
            warnings.append(
                f"--domain {name}: {source} has no column {group!r}, so each of its rows counts as "
                "a group of its own."
            )
        rows = sample_rows(rows_from_table(table, {}, own).rows, most, data.seed)
        found[name] = with_copies_joined(rows, data.near_duplicate_threshold)
    return found, warnings


def spread(items: list[Path], most: int) -> list[Path]:
    """At most ``most`` of them, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    places = {round(number * (len(items) - 1) / (most - 1)) for number in range(most)}
    return [items[place] for place in sorted(places)]
