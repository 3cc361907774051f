"""A clean copy: every row once, in parts that do not leak, with a manifest of what went where.

The user's files are only read. The copy is written beside its place and moved there when whole.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from heldout.core.errors import UserError
from heldout.core.files import written_whole
from heldout.core.recipe import DataSection
from heldout.core.row import LEAST_TO_SPLIT, Part
from heldout.core.stats import LEAST_HELD_OUT
from heldout.data.canaries import Canary, canary_fields, make_canaries
from heldout.data.dates import dates_of
from heldout.data.deal import Component, deal, deal_by_time
from heldout.data.index import Index
from heldout.data.notes import giant_note
from heldout.data.pairs import Components
from heldout.data.relations import relations
from heldout.data.straddling import MOST_ROUNDS, straddling
from heldout.data.stream import RowStream, StreamedRow


@dataclass(frozen=True)
class CleanCopy:
    """Where the copy is, and what the user should know of it."""

    folder: Path
    notes: list[str]


def refuse_occupied(folder: Path) -> None:
    """Raise UserError where something would be overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: give a new folder. Nothing was written.")


def write_clean_copy(
    folder: Path,
    index: Index,
    streams: Sequence[tuple[str, RowStream]],
    data: DataSection,
    num_canaries: int,
) -> CleanCopy:
    """``train.jsonl`` with the held-out parts, ``rows.jsonl`` and ``manifest.json``.

    ``streams`` are the sources of the training and held-out rows, in the order of the index.

    Of rows that repeat one another the first is kept. A training row that repeats, shares a long
    span or a group with a held-out row, or stands in a named test set, is left out. Where no
    held-out rows are given, validation and test are split off with the shares of ``data``; where
    there are too few groups for that, all rows are training rows and a note says so.
    Canaries go into the training rows, and their record into ``canaries.json``.
    """
    refuse_occupied(folder)
    readable = (item for item in streams[0][1] if item.fault is None)
    dates = dates_of(readable, data.time) if data.time else []
    place = _places(index, data, dates)
    canaries = make_canaries(num_canaries, data.seed)
    planted = _planted(canaries, streams[0][1], place.num_train_rows(), data.seed)
    with written_whole(folder) as partial:
        partial.mkdir(parents=True)
        rows, left_out = _write_rows(partial, streams, place, planted)
        manifest = {
            "schema": "heldout.clean/1",
            "sources": {stream.label: stream.sha256() for _, stream in streams},
            "rows": dict(sorted(rows.items())),
            "left_out": dict(left_out),
            "near_duplicate_threshold": data.near_duplicate_threshold,
            "seed": data.seed,
            "canaries": len(canaries),
            "planted_rows": sum(canary.copies for canary in canaries),
            "notes": place.notes,
        }
        _write_json(partial / "manifest.json", manifest)
        if canaries:
            record = {
                "schema": "heldout.canaries/1",
                "seed": data.seed,
                "canaries": [canary.to_json() for canary in canaries],
            }
            _write_json(partial / "canaries.json", record)
    return CleanCopy(folder, place.notes)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Fate:
    """The part a row goes to, or None and why it is left out, in full and as it is counted."""

    to: str | None
    why: str = ""
    reason: str = ""


class _Places:
    """Where each row of the index goes, and why."""

    def __init__(self, index: Index):
        self.index = index
        self.why: dict[int, tuple[str, str]] = {}  # position -> reason, and the reason in full
        self.part_of: dict[int, str] = {}  # position -> part, where it is not its own
        self.notes: list[str] = []

    def leave_out(self, position: int, reason: str, other: int) -> None:
        text = f"{reason} {self.index.where(other)}"
        self.why.setdefault(position, (reason, text))

    def num_train_rows(self) -> int:
        """That stay training rows."""
        is_train_R = self.index.part_R == 0
        left_out = sum(bool(is_train_R[position]) for position in self.why)
        return int(is_train_R.sum()) - left_out - len(self.part_of)

    def fate_of(self, part: str, item: StreamedRow, position: int) -> _Fate:
        if item.fault is not None:
            return _Fate(None, f"{item.fault.kind}: {item.fault.message}", item.fault.kind)
        if position in self.why:
            reason, text = self.why[position]
            return _Fate(None, text, reason.rstrip(":"))
        return _Fate(self.part_of.get(position, part))


_IN_HELDOUT = {
    "exact": "repeats a held-out row",
    "near": "nearly repeats a held-out row",
    "span": "shares a long span with a held-out row",
    "prompt": "has the prompt of a held-out row",
    "answer": "has the long answer of a held-out row",
    "paraphrase": "says in other words what a held-out row says",
}


def _places(index: Index, data: DataSection, dates: list[float]) -> _Places:
    place = _Places(index)
    has_heldout = bool((index.part_R == 1).any())
    together = Components(len(index))
    pairs: list[tuple[int, int]] = []
    for found in relations(index):
        a, b = found.first, found.second
        part_b = index.part_R[b]
        if index.part_R[a] == part_b:
            together.join(a, b)
            if found.kind in ("near", "span"):
                pairs.append((a, b))
            if found.kind in ("exact", "near") and a not in place.why:
                what = "repeats" if found.kind == "exact" else "nearly repeats"
                place.leave_out(b, f"{what} an earlier row:", a)
        elif part_b == 1:
            place.leave_out(a, f"{_IN_HELDOUT[found.kind]}:", b)
        else:
            place.leave_out(a, "stands in a named test set:", b)
    if has_heldout:
        _give_way(index, place, data)
    else:
        _deal_out(index, place, _Dealing(together, pairs, dates), data)
    return place


def _give_way(index: Index, place: _Places, data: DataSection) -> None:
    """Training rows of the groups and clusters of held-out rows go, and what a check then finds."""
    is_train_R, is_heldout_R = index.part_R == 0, index.part_R == 1
    for name_R, among_R, reason in (
        (index.group_R, index.group_R > 0, "is of the same group as a held-out row:"),
        (index.label_R, index.label_R >= 0, _IN_HELDOUT["near"] + ":"),
    ):
        names = np.intersect1d(name_R[among_R & is_train_R], name_R[among_R & is_heldout_R])
        for name in names.tolist():
            members = np.flatnonzero(among_R & (name_R == name))
            other = int(members[is_heldout_R[members]][0])
            for position in members[is_train_R[members]].tolist():
                place.leave_out(position, reason, other)
    heldout = [row for row in np.flatnonzero(is_heldout_R).tolist() if row not in place.why]
    for _ in range(MOST_ROUNDS):
        train = [row for row in np.flatnonzero(is_train_R).tolist() if row not in place.why]
        found = list(straddling(index, train, [heldout], data.near_duplicate_threshold))
        for a, b in found:
            place.leave_out(a, "shares with a held-out row what few rows hold:", b)
        if not found:
            break


@dataclass(frozen=True)
class _Dealing:
    """What rows that are dealt out belong to, and when they are of."""

    together: Components
    pairs: list[tuple[int, int]]  # of rows that are alike
    dates: list[float]  # of the training rows, which come first; none: at random


def _deal_out(index: Index, place: _Places, dealing: _Dealing, data: DataSection) -> None:
    together, dates = dealing.together, dealing.dates
    first: dict[int, int] = {}
    rows = np.flatnonzero(index.part_R == 0).tolist()
    for position in rows:
        group = int(index.group_R[position])
        if group:
            together.join(first.setdefault(group, position), position)
    kept = [position for position in rows if position not in place.why]
    shares: dict[Part, float] = {"test": data.test_share, "validation": data.validation_share}
    wanted = {part: share for part, share in shares.items() if share}
    if not wanted:
        return
    for _ in range(MOST_ROUNDS):
        components = _components(index, dealing, kept)
        enough = len(components) >= LEAST_TO_SPLIT
        parts = None
        if enough and dates:
            parts = deal_by_time(components, wanted)
        elif enough:
            parts = deal(components, wanted, data.seed)
        place.part_of.clear()
        for part, chosen in (parts or {}).items():
            for component in chosen:
                place.part_of.update(dict.fromkeys(component.positions, part))
        train = [position for position in kept if position not in place.part_of]
        others = [
            [position for component in chosen for position in component.positions]
            for chosen in (parts or {}).values()
        ]
        found = list(straddling(index, train, others, data.near_duplicate_threshold))
        for a, b in found:
            together.join(a, b)
        if not found:
            break
    mode: Literal["split", "cross_validation", "refused"] = "split"
    if parts is None:
        then = f"fit needs at least {LEAST_TO_SPLIT}"
        mode = "cross_validation" if enough else "refused"
        if enough:
            then = "fit cross-validates instead"
        place.notes.append(
            f"No {' or '.join(reversed(wanted))} part was split off, train.jsonl holds all rows: "
            f"held-out parts take {LEAST_HELD_OUT} independent groups each and at most half of "
            f"all, and there are {len(components):,} (duplicates and rows of one group count "
            f"once). heldout {then}."
        )
    if giant := giant_note(together, kept, dealing.pairs, mode):
        place.notes.append(giant)


def _components(index: Index, dealing: _Dealing, rows: list[int]) -> list[Component]:
    members: dict[int, list[int]] = {}
    for position in rows:
        members.setdefault(int(dealing.together.label[position]), []).append(position)
    return [
        Component(
            positions,
            min(int(index.key_R[p]) for p in positions).to_bytes(8, "big"),
            max((dealing.dates[p] for p in positions), default=0.0) if dealing.dates else 0.0,
        )
        for positions in members.values()
    ]


def _planted(
    canaries: Sequence[Canary], stream: RowStream, num_rows: int, seed: int
) -> dict[int, list[str]]:
    """Lines of canaries by the number of training rows that stand before them, drawn at random."""
    rng = random.Random(f"planted {seed}")
    lines: dict[int, list[str]] = {}
    for canary in canaries:
        fields = canary_fields(canary, stream.format, stream.columns)
        for _ in range(canary.copies):
            lines.setdefault(rng.randrange(num_rows + 1), []).append(_json_line(fields))
    return lines


def _write_rows(
    folder: Path,
    streams: Sequence[tuple[str, RowStream]],
    place: _Places,
    planted: dict[int, list[str]],
) -> tuple[Counter[str], Counter[str]]:
    """A file for each part, and ``rows.jsonl``. Returns the rows of each and those left out."""
    written: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    position = 0  # in the index, which holds no rows with a fault
    with ExitStack() as stack:

        def create(name: str) -> TextIO:
            return stack.enter_context((folder / f"{name}.jsonl").open("w", encoding="utf-8"))

        log, files = create("rows"), {"train": create("train")}
        for part, stream in streams:
            for item in stream:
                fate = place.fate_of(stream.ready_part or part, item, position)
                position += item.fault is None
                entry = {"part": part, "row": item.index, "where": item.where}
                log.write(_json_line({**entry, "to": fate.to, "why": fate.why}))
                if fate.to is None:
                    left_out[fate.reason] += 1
                    continue
                if fate.to not in files:
                    files[fate.to] = create(fate.to)
                if fate.to == "train":
                    files["train"].writelines(planted.pop(written["train"], ()))
                files[fate.to].write(_json_line(_fields_of(item, stream)))
                written[fate.to] += 1
        for lines in planted.values():
            files["train"].writelines(lines)
    return written, left_out


def _fields_of(item: StreamedRow, stream: RowStream) -> dict[str, Any]:
    if stream.texts_of_folder and item.row is not None:
        return {**item.fields, "source": item.row.source}
    return item.fields


def _json_line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str) + "\n"
