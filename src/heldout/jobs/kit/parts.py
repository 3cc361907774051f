"""Rows of a run: read and split once, written into the folder, and read back on resume."""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.recipe import DataSection, Recipe
from heldout.core.row import PARTS, Part, Row
from heldout.core.run import Run
from heldout.data.columns import ReadRows, read_rows
from heldout.data.duplicates import find_related
from heldout.data.layout import find_layout
from heldout.data.pairs import Components
from heldout.data.split import Dropped, folds, split_rows

FEWEST_BESIDE = 40  # training rows that are measured at each evaluation


@dataclass(frozen=True)
class Parts:
    """The three parts; ``test`` is empty once the run folder holds it."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    mode: str
    rows: dict[Part, int]
    groups: dict[Part, int]
    followed: list[int]  # indexes of the training rows whose clean loss is followed
    about: dict[str, Any] = field(default_factory=dict)
    # Rows of other sources, by the augmentation that reads them: trained on, never measured.
    mixed: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def texts(self) -> "Texts":
        """The rows of a run's main training."""
        followed = set(self.followed)
        rows = [row for row in self.train if row.index in followed]
        return Texts(self.train, self.validation, rows)


@dataclass(frozen=True)
class Texts:
    """The rows a condition trains on and is measured on."""

    train: list[Row]
    validation: list[Row]
    followed: list[Row]  # training rows whose clean loss is followed

    @property
    def beside(self) -> list[Row]:
        """Of the followed rows as many as are held out, for the curve that is drawn beside theirs.

        More would cost time at each evaluation, and the held-out rows would still limit how sure
        the distance of the curves is.
        """
        return sample_rows(self.followed, max(FEWEST_BESIDE, len(self.validation)), 0)


def searched_texts(texts: Texts, recipe: Recipe) -> Texts:
    """On which a run searches its learning rate: of the first fold, where no rows are held out."""
    if texts.validation:
        return texts
    fold = folds(texts.train, recipe.eval.folds, recipe.data.seed)[0]
    return Texts(fold.train, fold.held_out, fold.train[: recipe.eval.max_train_rows])


def read_parts(source: str, recipe: Recipe) -> Parts:
    """Read and split without leaks; raises UserError, writes nothing."""
    data = recipe.data
    read = read_rows(source, data.columns, data.group, data.time, data)
    given = _ready_parts(source, read, data)
    split = split_rows(
        read.rows, data, {part: each.rows for part, each in given.items()}, read.dates
    )
    # With cross-validation every training row is held out once.
    held_out = split.validation + split.test if split.mode == "split" else split.train
    mixed, repeats = _mixed_rows(recipe, held_out)
    all_read = [read, *given.values()]
    return Parts(
        split.train,
        split.validation,
        split.test,
        mode=split.mode,
        rows={cast(Part, part): len(getattr(split, part)) for part in PARTS},
        groups=dict(split.units),
        followed=[
            row.index
            for row in sample_rows(split.train, recipe.eval.max_train_rows, recipe.data.seed)
        ],
        about={
            "source": read.source,
            "sha256": read.sha256,
            "kind": read.kind,
            "columns": read.columns,
            "dropped": [vars(dropped) for dropped in [*split.dropped, *repeats]],
            "notes": list(split.notes),
            "reading": list(dict.fromkeys(note for each in all_read for note in each.notes)),
            "duplicates": split.exact_duplicates + split.near_duplicates,
        },
        mixed=mixed,
    )


def _ready_parts(source: str, read: ReadRows, data: DataSection) -> dict[Part, ReadRows]:
    """The held-out parts that the user names, or that lie beside the training rows."""
    layout = find_layout(source, data)
    beside = layout.parts if layout is not None else {}
    found: dict[Part, ReadRows] = {}
    wanted: tuple[tuple[Part, str], ...] = (("validation", data.validation), ("test", data.test))
    for part, path in wanted:
        if path:
            try:
                given = read_rows(path, data.columns, data.group, data=data, part="heldout")
            except UserError as error:
                raise UserError(f"data.{part}: {error}") from None
        elif part in beside:
            given = read_rows(source, data.columns, data.group, data=data, part=part)
        else:
            continue
        if given.kind != read.kind:
            raise UserError(
                f"data.{part}: {path or source} holds rows of kind {given.kind}, {source} rows of "
                f"kind {read.kind}: they must be the same."
            )
        found[part] = given
    return found


def _mixed_rows(recipe: Recipe, measured: list[Row]) -> tuple[dict[str, list[Row]], list[Dropped]]:
    """Rows that augmentations add, without those that repeat a row that is measured."""
    mixed, dropped = {}, []
    for name, parameters in recipe.augment.items():
        augmentation = build("augmentation", name, parameters)
        path = getattr(augmentation, augmentation.READS) if augmentation.READS else ""
        if not path:
            continue
        try:
            read = read_rows(path, data=recipe.data).rows
        except UserError as error:
            raise UserError(f"augment.{name}: {error}") from None
        rows = [replace(row, source=row.source or Path(path).stem) for row in read]
        both = [*measured, *rows]
        related = Components(len(both))
        for pair in find_related(both, recipe.data.near_duplicate_threshold):
            related.join(pair.row_a, pair.row_b)
        label = related.label.tolist()
        leaks = set(label[: len(measured)])
        mixed[name] = [
            row for row, of in zip(rows, label[len(measured) :], strict=True) if of not in leaks
        ]
        if len(mixed[name]) < len(rows):
            reason = f"{name} row that repeats, or shares a span with, a held-out row"
            dropped.append(Dropped(reason, len(rows) - len(mixed[name])))
        if not mixed[name]:
            raise UserError(f"augment.{name}: all rows of {path} repeat held-out rows.")
    return mixed, dropped


def write_parts(run: Run, parts: Parts, recipe: Recipe) -> None:
    """The parts as used, with counts and hashes in ``data.json``."""
    hashes = {}
    for part in PARTS:
        run.write_rows(part, getattr(parts, part))
        hashes[part] = hashlib.sha256(run.path(f"data/{part}.jsonl").read_bytes()).hexdigest()
    for name, rows in parts.mixed.items():
        run.write_rows(name, rows)
    run.write_json(
        "data.json",
        {
            **parts.about,
            "mode": parts.mode,
            "rows": parts.rows,
            "groups": parts.groups,
            "sha256_parts": hashes,
            "followed_rows": parts.followed,
            "seed": recipe.data.seed,
        },
    )


def load_parts(run: Run) -> Parts:
    """What ``write_parts`` wrote, without opening the test part."""
    about = run.read_json("data.json")
    return Parts(
        train=list(run.read_rows("train")),
        validation=list(run.read_rows("validation")),
        test=[],
        mode=about["mode"],
        rows=about["rows"],
        groups=about["groups"],
        followed=about["followed_rows"],
        about=about,
    )


def sample_rows(rows: Iterable[Row], most: int, seed: int) -> list[Row]:
    """At most that many rows, chosen by a hash of seed and index, in their order."""

    def key(row: Row) -> bytes:
        return hashlib.sha256(f"{seed}:{row.index}".encode()).digest()

    return sorted(heapq.nsmallest(most, rows, key=key), key=lambda row: row.index)
