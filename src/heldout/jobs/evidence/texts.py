"""The texts a diagnosis is made on: samples of what was trained on and of what was held out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.data.columns import read_rows
from heldout.data.duplicates import find_related
from heldout.data.stream import RowStream
from heldout.jobs.checking.check import check
from heldout.jobs.kit.parts import sample_rows


@dataclass(frozen=True)
class DiagnosedTexts:
    """Samples in the order of their source; ``all_train`` goes through every training row."""

    train: list[Row]
    heldout: list[Row]
    all_train: Callable[[], Iterable[Row]]
    num_train_rows: int
    domains: dict[str, list[Row]] = field(default_factory=dict)
    duplicate_share: float | None = None
    leak_share: float | None = None
    copies: Mapping[int, int] = field(default_factory=dict)  # training row -> times it stands there
    warnings: tuple[str, ...] = ()


def texts_of_run(
    run: Run, heldout: str, domains: Mapping[str, str], recipe: Recipe, most: int
) -> DiagnosedTexts:
    """The training rows of a run, and the rows of ``heldout`` that do not repeat them.

    Where ``heldout`` is empty: its sealed test, opened once more, which is recorded.
    """
    about = run.read_json("data.json")
    rows = about["rows"]
    unseen: Iterable[Row]
    leak_share, warnings = 0.0, []  # by the split, which keeps all that is related together
    if heldout:
        found = read_rows(heldout, recipe.data.columns, recipe.data.group or run.recipe.data.group)
        if found.kind != about["kind"]:
            raise UserError(
                f"--heldout {heldout} holds rows of kind {found.kind}, the run was trained on rows "
                f"of kind {about['kind']}: they must be the same."
            )
        unseen = _unrelated(found.rows, list(run.read_rows("train")), recipe)
        num_left_out = len(found.rows) - len(unseen)
        leak_share = num_left_out / len(found.rows)
        if num_left_out:
            warnings.append(_left_out(num_left_out))
    elif rows["test"]:
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
        sampled,
        lambda: run.read_rows("train"),
        rows["train"],
        _read_domains(domains, recipe, most),
        duplicate_share=about["duplicates"] / max(1, rows["train"]),
        leak_share=leak_share,
        warnings=tuple(warnings),
    )


def _unrelated(rows: list[Row], train: list[Row], recipe: Recipe) -> list[Row]:
    """Those that neither repeat a training row nor share a long span with one."""
    pairs = find_related([*train, *rows], recipe.data.near_duplicate_threshold)
    related = {p.row_b - len(train) for p in pairs if p.row_a < len(train) <= p.row_b}
    return [row for place, row in enumerate(rows) if place not in related]


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

    The sources are streamed; memory holds the samples. Raises UserError for an empty part.
    """
    data = recipe.data
    trained = _Counted(RowStream(train, data.columns, data.group))
    unseen = _Counted(RowStream(heldout, data.columns, data.group))
    found = check(train, heldout=[heldout], recipe=recipe, progress=progress)
    leaked = {pair.second.row for pair in found.leaks}
    train_rows = sample_rows(trained, most, data.seed)
    heldout_rows = sample_rows(unseen, most, data.seed)
    if not train_rows or not heldout_rows:
        raise UserError(f"{train if heldout_rows else heldout} has no rows that can be measured.")
    if train_rows[0].kind != heldout_rows[0].kind:
        raise UserError(
            f"--heldout {heldout} holds rows of kind {heldout_rows[0].kind}, {train} rows of kind "
            f"{train_rows[0].kind}: they must be the same."
        )
    kept = [row for row in heldout_rows if row.index not in leaked]
    warnings = []
    if len(kept) < len(heldout_rows):
        out = len(heldout_rows) - len(kept)
        if len({row.group for row in kept}) >= 2:
            heldout_rows = kept
            warnings.append(_left_out(out))
        else:
            warnings.append("All held-out rows stand in the training data: there is no control.")
    unseen_rows = found.rows_by_part["heldout"]
    return DiagnosedTexts(
        train_rows,
        heldout_rows,
        lambda: (each.row for each in trained.stream if each.row is not None),
        trained.num_rows,
        _read_domains(domains, recipe, most),
        duplicate_share=1 - found.distinct_rows / max(1, trained.num_rows),
        leak_share=found.counts["leaked_heldout_rows"] / max(1, unseen_rows),
        copies=_copies((pair.first.row, pair.second.row) for pair in found.duplicates),
        warnings=(*warnings, *found.warnings),
    )


class _Counted:
    """The rows of a stream that can be used, counted on the way."""

    def __init__(self, stream: RowStream):
        self.stream = stream
        self.num_rows = 0

    def __iter__(self) -> Iterator[Row]:
        self.num_rows = 0
        for each in self.stream:
            if each.row is not None:
                self.num_rows += 1
                yield each.row


def _copies(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """How often each row that is repeated stands there, from pairs of equal or near rows."""
    first: dict[int, int] = {}

    def root(row: int) -> int:
        while (up := first.setdefault(row, row)) != row:
            row = up
        return row

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        first[high] = low
    sizes = Counter(root(row) for row in first)
    return {row: sizes[root(row)] for row in first}


def _read_domains(domains: Mapping[str, str], recipe: Recipe, most: int) -> dict[str, list[Row]]:
    """Other text by name."""
    found = {}
    for name, source in domains.items():
        rows = read_rows(source, {}, "").rows
        found[name] = sample_rows(rows, most, recipe.data.seed)
    return found


def spread(items: list[Path], most: int) -> list[Path]:
    """At most ``most`` of them, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    places = {round(number * (len(items) - 1) / (most - 1)) for number in range(most)}
    return [items[place] for place in sorted(places)]
