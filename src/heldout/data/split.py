"""Train, validation and sealed test without leaks: what belongs together never straddles."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.core.row import LEAST_TO_SPLIT, Part, Row
from heldout.data.dates import shown
from heldout.data.deal import Component, deal, deal_by_time, digest
from heldout.data.duplicates import index_of, related
from heldout.data.index import Index
from heldout.data.notes import group_notes
from heldout.data.pairs import Components
from heldout.data.shingles import text_key
from heldout.data.straddling import MOST_ROUNDS, straddling


@dataclass(frozen=True)
class Dropped:
    """Rows that are in no part."""

    reason: str
    count: int


@dataclass(frozen=True)
class Split:
    """The parts. Row.group names the component: rows of one group, with all their duplicates."""

    mode: Literal["split", "cross_validation"]
    train: list[Row]
    validation: list[Row]
    test: list[Row]
    dropped: list[Dropped]
    exact_duplicates: int  # rows that repeat an earlier row of their part
    near_duplicates: int  # rows that nearly repeat an earlier row of their part
    notes: tuple[str, ...] = ()  # what the user should know of the groups

    @property
    def units(self) -> dict[Part, int]:
        """Number of components in each part: what intervals resample."""
        parts: dict[Part, list[Row]] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {name: len({row.group for row in rows}) for name, rows in parts.items()}


@dataclass(frozen=True)
class Fold:
    """One round of cross-validation."""

    train: list[Row]
    held_out: list[Row]


def split_rows(
    rows: Sequence[Row],
    data: DataSection,
    preassigned: Mapping[Part, Sequence[Row]] | None = None,
    dates: Sequence[float] | None = None,
) -> Split:
    """Split rows so that nothing that belongs together straddles two parts.

    Rows of one group, and rows that data/duplicates.py finds to belong together, are joined into
    components, and components are dealt out whole,
    in an order that depends on the seed and on the texts, not on the order of the rows. With n
    components a held-out part gets its share of the rows, or 30/n of them if that is more, in at
    least 30 components, and the test part 40 where that leaves 70 for training; those that are
    larger than the part are for training. If 30 components for
    each were more than half of all, the mode is ``cross_validation`` instead: all rows are training
    rows, for ``folds``. Where most rows are in a few giant components, the held-out parts take at
    most half of the rows that are not. (Shares that ask for more than half get it.) A test_share of
    0 gives no test part. Duplicates inside a part are kept and counted.

    ``preassigned`` holds the rows of data.validation and data.test. They stay where they are;
    training rows that belong to a component of theirs are dropped, and validation rows that belong
    to one of the test part. What is not preassigned is split off the training rows; where only the
    validation rows are given and there are too few rows for a test part, there is none.
    data.max_rows leaves a random choice of that many training rows, before everything else.
    With data.group, prompts and answers join no rows: the user's groups do.

    ``dates`` of the rows (data.time): the latest components are the test part, those before them
    validation, each at the place of its latest row. Folds know no dates.

    Raises UserError under 10 components, or where nothing is left to train on.
    """
    given: dict[Part, list[Row]] = {name: list(part) for name, part in (preassigned or {}).items()}
    dropped = []
    places = _choose(rows, data)
    chosen = [rows[place] for place in places]
    if len(chosen) < len(rows):
        dropped.append(Dropped("left out by data.max_rows", len(rows) - len(chosen)))
    shares: dict[Part, float] = {"test": data.test_share, "validation": data.validation_share}
    wanted = {part: share for part, share in shares.items() if part not in given}
    if wanted.get("validation") == 0:
        raise UserError(
            "data.validation_share must be above 0, got 0: without validation rows nothing tells "
            "when to stop. Or name a file with data.validation."
        )
    parts: dict[Part, list[Row]] = {**given, "train": chosen}
    all_rows = [row for part in parts.values() for row in part]
    with index_of([all_rows], data.near_duplicate_threshold, by_turns=not data.group) as index:
        pool = _Pool(parts, data, index)
        if dates is not None:
            pool.dates = [dates[place] for place in places]
        for _ in range(MOST_ROUNDS):
            mode, leaks = pool.deal_out(wanted, data)
            if mode == "cross_validation" or not pool.join_straddling(data):
                break
        return pool.split(mode, dropped + leaks)


def folds(rows: Sequence[Row], num_folds: int, seed: int = 0) -> list[Fold]:
    """Divide rows by Row.group, as split_rows returns them, into folds of about equal size.

    Raises UserError if there are fewer groups than folds.
    """
    members: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault(row.group, []).append(position)
    if len(members) < num_folds:
        raise UserError(
            f"eval.folds must be at most the number of independent groups ({len(members)}), got "
            f"{num_folds}."
        )
    keys = {
        group: digest(seed, "fold", min(text_key(rows[p].text) for p in positions))
        for group, positions in members.items()
    }
    fold_of: dict[int, int] = {}
    sizes = [0] * num_folds
    for group in sorted(members, key=lambda group: (-len(members[group]), keys[group])):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[group])
        fold_of.update(dict.fromkeys(members[group], fold))
    return [
        Fold(
            train=[row for position, row in enumerate(rows) if fold_of[position] != fold],
            held_out=[row for position, row in enumerate(rows) if fold_of[position] == fold],
        )
        for fold in range(num_folds)
    ]


class _Pool:
    """All rows, the part each is in, and the component each belongs to."""

    def __init__(self, parts: Mapping[Part, Sequence[Row]], data: DataSection, index: Index):
        self.rows = [row for part in parts.values() for row in part]
        self.index = index
        self.dates: list[float] = []  # of the training rows, which are the last
        own_part = [name for name, part in parts.items() for _ in part]
        self.own_part = own_part
        self.part_of: list[Part | None] = [*own_part]  # None: dropped
        self.duplicates = related(index)
        self.names = [
            _group_name(row, part, data.group)
            for row, part in zip(self.rows, own_part, strict=True)
        ]
        components = Components(len(self.rows))
        first: dict[str, int] = {}
        for position, name in enumerate(self.names):
            components.join(first.setdefault(name, position), position)
        for pair in self.duplicates:
            components.join(pair.row_a, pair.row_b)
        self.components = components
        self.label = components.label.tolist()

    def deal_out(
        self, wanted: Mapping[Part, float], data: DataSection
    ) -> tuple[Literal["split", "cross_validation"], list[Dropped]]:
        """Each row into its part, from the start; see split_rows."""
        self.part_of = [*self.own_part]
        dropped = self.drop_leaks()
        if not any(wanted.values()):
            return "split", dropped
        components = self.train_components()
        if "validation" in wanted and len(components) < LEAST_TO_SPLIT:
            num_rows = sum(len(component.positions) for component in components)
            told = "".join(f" {note}" for note in self.notes("refused"))
            groups = (
                "1 independent group"
                if len(components) == 1
                else (f"{len(components)} independent groups")
            )
            raise UserError(
                f"The data holds {groups} in {num_rows} row{'s' * (num_rows != 1)} (duplicates and "
                f"rows of one group count once): a split needs at least {LEAST_TO_SPLIT}. Add "
                f"rows, or name files with data.validation and data.test.{told}"
            )
        if self.dates:
            parts = deal_by_time(components, wanted)
        else:
            parts = deal(components, wanted, data.seed)
        if parts is None and "validation" in wanted:
            return "cross_validation", dropped
        self.move(parts or {})
        return "split", dropped

    def join_straddling(self, data: DataSection) -> bool:
        """Join rows of two parts that a check of these parts alone would find; whether any."""
        train = self.positions("train")
        others = [self.positions("validation"), self.positions("test")]
        found = list(straddling(self.index, train, others, data.near_duplicate_threshold))
        for a, b in found:
            self.components.join(a, b)
        self.label = self.components.label.tolist()
        return bool(found)

    def notes(self, mode: Literal["split", "cross_validation", "refused"]) -> tuple[str, ...]:
        pairs = [(p.row_a, p.row_b) for p in self.duplicates if p.kind in ("near", "span")]
        train = [p for p, part in enumerate(self.own_part) if part == "train"]
        found = group_notes(self.index, self.components, train, pairs, mode)
        note = self.time_note(mode)
        return (*found, note) if note else found

    def positions(self, part: Part) -> list[int]:
        return [position for position, name in enumerate(self.part_of) if name == part]

    def drop_leaks(self) -> list[Dropped]:
        """The test part keeps what it has, then the validation part."""
        dropped = []
        order: list[tuple[Part, Part]] = [
            ("validation", "test"),
            ("train", "test"),
            ("train", "validation"),
        ]
        for loser, keeper in order:
            kept = {self.label[position] for position in self.positions(keeper)}
            leaks = [p for p in self.positions(loser) if self.label[p] in kept]
            for position in leaks:
                self.part_of[position] = None
            if leaks:
                reason = f"{loser} row that repeats, or shares a group with, a row of {keeper}"
                dropped.append(Dropped(reason, len(leaks)))
                if not self.positions(loser):
                    raise UserError(
                        f"All {len(leaks)} {loser} rows that were left repeat, or share a group "
                        f"with, rows of {keeper}: give other rows for one of the two."
                    )
        return dropped

    def date_of(self, position: int) -> float:
        return self.dates[position - (len(self.rows) - len(self.dates))]

    def time_note(self, mode: str) -> str:
        """From when to when each part is, and how many rows groups keep from their place."""
        if not self.dates:
            return ""
        if mode != "split":
            return (
                "There are too few groups for parts in the order of data.time: cross-validation "
                "takes its folds from all dates."
            )
        first = len(self.rows) - len(self.dates)
        is_date = max(map(abs, self.dates)) > 100_000
        told, later = [], 0
        spans: dict[Part, list[float]] = {}
        names: tuple[Part, ...] = ("train", "validation", "test")
        for name in names:
            found = [self.date_of(p) for p in self.positions(name) if p >= first]
            if found:
                spans[name] = found
                low, high = (shown(value, is_date) for value in (min(found), max(found)))
                told.append(f"{name} {low} to {high}")
        for before, after in zip(list(spans), list(spans)[1:], strict=False):
            latest = max(spans[before])
            later += sum(value < latest for value in spans[after])
        note = f"Split in time: {', '.join(told)}."
        if later:
            return (
                f"{note} A group takes the place of its latest row: {later:,} rows are older than "
                "rows of the part before."
            )
        return f"{note} A group takes the place of its latest row."

    def train_components(self) -> list[Component]:
        members: dict[int, list[int]] = {}
        for position in self.positions("train"):
            members.setdefault(self.label[position], []).append(position)
        return [
            Component(
                positions,
                min(text_key(self.rows[p].text) for p in positions),
                max(map(self.date_of, positions)) if self.dates else 0.0,
            )
            for positions in members.values()
        ]

    def move(self, parts: Mapping[Part, list[Component]]) -> None:
        for name, components in parts.items():
            for component in components:
                for position in component.positions:
                    self.part_of[position] = name

    def split(self, mode: Literal["split", "cross_validation"], dropped: list[Dropped]) -> Split:
        """The result, after checking that nothing straddles."""
        name_of: dict[int, str] = {}  # a component is named after the first of its groups
        for label, name in zip(self.label, self.names, strict=True):
            name_of[label] = min(name, name_of.get(label, name))
        parts: dict[Part, list[Row]] = {"train": [], "validation": [], "test": []}
        for row, part, label in zip(self.rows, self.part_of, self.label, strict=True):
            if part is not None:
                parts[part].append(dataclasses.replace(row, group=name_of[label]))
        part_of_group: dict[str, Part] = {}
        for part, rows in parts.items():
            for row in rows:
                assert part_of_group.setdefault(row.group, part) == part, f"{row.group} straddles"
        repeats: dict[str, set[int]] = {"exact": set(), "near": set()}
        for pair in self.duplicates:
            part_a, part_b = self.part_of[pair.row_a], self.part_of[pair.row_b]
            if part_a is not None and part_b is not None:
                assert part_a == part_b, f"{pair} straddles {part_a} and {part_b}"
                repeats.setdefault(pair.kind, set()).add(pair.row_b)
        num_near = len(repeats["near"] - repeats["exact"])
        return Split(
            mode,
            **parts,
            dropped=dropped,
            exact_duplicates=len(repeats["exact"]),
            near_duplicates=num_near,
            notes=self.notes(mode),
        )


def _group_name(row: Row, part: Part, group_column: str) -> str:
    """Names that files give by themselves (row-7, a.txt) mean nothing in another file."""
    named_by_user = group_column and row.group != f"row-{row.index}"
    return row.group if part == "train" or named_by_user else f"{part}:{row.group}"


def _choose(rows: Sequence[Row], data: DataSection) -> list[int]:
    """Places of at most data.max_rows rows."""
    if not data.max_rows or len(rows) <= data.max_rows:
        return list(range(len(rows)))
    keys = [digest(data.seed, "row", text_key(row.text)) for row in rows]
    return sorted(sorted(range(len(rows)), key=lambda position: keys[position])[: data.max_rows])
