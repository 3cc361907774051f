"""Rows on disk with their token codes, written in one pass; memory does not hold the texts."""

# R rows

import weakref
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.characters import token_bytes
from heldout.core.progress import Progress
from heldout.core.segments import folded
from heldout.data.pairs import Boilerplate, Engine, Span
from heldout.data.pieces import piece_codes
from heldout.data.quality import TextFinding, examine_all
from heldout.data.shingles import Codes, joined, slices, text_key, token_codes
from heldout.data.turns import SharedTurn, Turn, TurnKeys, turn_keys

BATCH_CHARACTERS = 1_000_000
CHARACTERS_AT_ONCE = 60_000  # whose arrays fit the cache
MOST_FINDINGS = 10_000  # of one sort that are kept


@dataclass(slots=True)  # frozen ones take four times as long to make
class IndexedRow:
    """What is kept of a row; ``part`` 0 is training, 1 held-out, from 2 on named test sets."""

    part: int
    index: int  # in its source
    where: str
    group: str
    text: str
    turns: tuple[Turn, ...] = ()  # of rows with a prompt


@dataclass
class Index:
    """Rows by position: 0, 1, ... in the order in which they were given."""

    folder: Path
    part_R: np.ndarray
    index_R: np.ndarray
    group_R: np.ndarray  # a number for each group
    num_characters_R: np.ndarray
    codes: Codes  # of words; they lie in a file
    pieces: Codes  # of letters, as near copies are compared; in a file
    turns: TurnKeys
    text_ends_R: np.ndarray
    about_ends_R: np.ndarray
    key_R: np.ndarray  # a hash of each text
    first_R: np.ndarray  # position of the first row with the same text
    findings: list[tuple[int, TextFinding]]  # the first MOST_FINDINGS of each sort
    finding_counts: Counter[tuple[str, str]]  # (kind, what): all, of training and held-out rows
    near: list[tuple[int, int, float]] = field(default_factory=list)
    paraphrases: list[tuple[int, int, float]] = field(default_factory=list)  # where asked for
    spans: list[Span] = field(default_factory=list)
    boilerplate: list[Boilerplate] = field(default_factory=list)
    shared: list[SharedTurn] = field(default_factory=list)
    usual_turns: list[SharedTurn] = field(default_factory=list)  # of many rows: they do not join
    was_excused: bool = False  # whether anything was boilerplate, so that it did not join rows
    label_R: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    files: dict[str, FileIO] = field(default_factory=dict)  # that are open

    def chosen(self, rows: np.ndarray, parts: np.ndarray, folder: Path) -> "Index":
        """Some of the rows as an index of its own, in other parts; its texts are not to be read."""
        place_R = np.full(len(self), -1)
        place_R[rows] = np.arange(len(rows))
        return Index(
            folder,
            parts.astype(np.uint8),
            self.index_R[rows],
            self.group_R[rows],
            self.num_characters_R[rows],
            self.codes.chosen(rows),
            self.pieces.chosen(rows),
            self.turns.of_rows(place_R),
            np.zeros(0, dtype=np.int64),
            np.zeros(0, dtype=np.int64),
            self.key_R[rows],
            _first_equal(self.first_R[rows]),
            [],
            Counter(),
        )

    def text(self, position: int) -> str:
        """Read from disk."""
        return self._piece("texts", self.text_ends_R, position)

    def where(self, position: int) -> str:
        return self.about(position)[0]

    def group(self, position: int) -> str:
        return self.about(position)[1]

    def about(self, position: int) -> tuple[str, str]:
        """Where a row stands in its source, and its group."""
        where, _, group = self._piece("about", self.about_ends_R, position).partition("\0")
        return where, group

    def _piece(self, name: str, ends_R: np.ndarray, position: int) -> str:
        file = self.files.get(name)
        if file is None:
            file = self.files[name] = FileIO(self.folder / name)
            weakref.finalize(self, file.close)
        start = int(ends_R[position - 1]) if position else 0
        file.seek(start)
        return file.read(int(ends_R[position]) - start).decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self.part_R)


@dataclass(frozen=True)
class _Batch:
    keys: bytes
    codes: Codes
    pieces: Codes
    turns: list[tuple[int, int, int]]  # place, kind, hash
    findings: list[tuple[int, TextFinding]]


def _prepare(texts: list[str], turns: list[tuple[Turn, ...]], look_for_faults: bool) -> _Batch:
    """What is kept of a batch of texts, some of them at a time, so that all stays in the cache."""
    keys: list[bytes] = []
    codes: list[Codes] = []
    pieces: list[Codes] = []
    findings: list[tuple[int, TextFinding]] = []
    for start, stop in slices([len(text) for text in texts], CHARACTERS_AT_ONCE):
        some = texts[start:stop]
        plain = [folded(text) for text in some]
        keys += map(text_key, plain)
        codes.append(token_codes(token_bytes(plain)))
        pieces.append(piece_codes(some))
        if look_for_faults:
            findings += [(start + place, found) for place, found in examine_all(some)]
    return _Batch(
        b"".join(keys),
        joined(codes),
        joined(pieces),
        [(place, *key) for place, each in enumerate(turns) for key in turn_keys(each)],
        findings,
    )


def write_index(
    rows: Iterable[IndexedRow],
    folder: Path,
    engine: Engine,
    progress: Progress,
    look_for_faults: bool = True,
) -> Index:
    """Write texts and codes, and find equal texts by their keys; nothing is compared yet."""
    part, number, group = array("B"), array("L"), array("L")
    characters, text_ends, about_ends = array("L"), array("Q"), array("Q")
    groups: dict[tuple[bool, str], int] = {}
    lengths: list[np.ndarray] = []
    piece_counts: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    turns: list[np.ndarray] = [np.zeros((0, 3), dtype=np.uint64)]
    findings: list[tuple[int, TextFinding]] = []
    finding_counts: Counter[tuple[str, str]] = Counter()

    def batches() -> Iterator[tuple[list[str], list[tuple[Turn, ...]], bool]]:
        text_end = about_end = size = 0
        texts: list[str] = []
        asked: list[tuple[Turn, ...]] = []
        with (folder / "texts").open("wb") as text_file, (folder / "about").open("wb") as abouts:
            for row in rows:
                text_end += text_file.write(row.text.encode("utf-8", "surrogatepass"))
                about = f"{row.where}\0{row.group}".encode("utf-8", "surrogatepass")
                about_end += abouts.write(about)
                text_ends.append(text_end)
                about_ends.append(about_end)
                part.append(row.part)
                number.append(row.index)
                characters.append(len(row.text))
                # Names that files give by themselves mean nothing in another file.
                name = row.group if row.group != f"row-{row.index}" else ""
                group.append(groups.setdefault((True, name), len(groups)) if name else 0)
                texts.append(row.text)
                asked.append(row.turns)
                size += len(row.text)
                if size >= BATCH_CHARACTERS:
                    yield texts, asked, look_for_faults
                    texts, asked, size = [], [], 0
            if texts:
                yield texts, asked, look_for_faults

    groups[(False, "")] = 0
    done = 0
    with (folder / "codes").open("wb") as code_file, (folder / "pieces").open("wb") as piece_file:
        for batch in engine.map(_prepare, batches()):
            code_file.write(batch.codes.codes_T.tobytes())
            piece_file.write(batch.pieces.codes_T.tobytes())
            keys.append(np.frombuffer(batch.keys, dtype=">u8").reshape(-1, 2).astype(np.uint64))
            lengths.append(batch.codes.lengths_R)
            piece_counts.append(batch.pieces.lengths_R)
            if batch.turns:
                own = np.array(batch.turns, dtype=np.uint64)
                own[:, 0] += np.uint64(done)
                turns.append(own)
            for place, finding in batch.findings:
                if part[done + place] < 2 and _is_kept(finding, finding_counts):
                    findings.append((done + place, finding))
            done += len(batch.codes.lengths_R)
            progress.advance(len(batch.codes.lengths_R))
    both_keys = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *keys])
    return Index(
        folder,
        np.array(part, dtype=np.uint8),
        np.array(number, dtype=np.int64),
        np.array(group, dtype=np.int64),
        np.array(characters, dtype=np.int64),
        Codes(_memory_map(folder / "codes", np.uint32), _ends(lengths)),
        Codes(_memory_map(folder / "pieces", np.uint32), _ends(piece_counts)),
        _turn_keys(np.concatenate(turns)),
        np.array(text_ends, dtype=np.int64),
        np.array(about_ends, dtype=np.int64),
        both_keys[:, 0].copy(),
        _first_of(both_keys),
        findings,
        finding_counts,
    )


def _is_kept(finding: TextFinding, counts: Counter[tuple[str, str]]) -> bool:
    """Count a finding, and tell whether it is one of the first of its sort."""
    sort = (finding.kind, finding.what)
    counts[sort] += 1
    return counts[sort] <= MOST_FINDINGS


def _turn_keys(turns: np.ndarray) -> TurnKeys:
    """Of (row, kind, hash)."""
    return TurnKeys(turns[:, 2], turns[:, 0].astype(np.int64), turns[:, 1].astype(np.int64))


def _ends(lengths: list[np.ndarray]) -> np.ndarray:
    return np.cumsum(np.concatenate([np.zeros(0, dtype=np.int64), *lengths]))


def _memory_map(path: Path, kind: Any) -> np.ndarray:
    if not path.stat().st_size:
        return np.zeros(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r").view(np.ndarray)


def _first_of(keys: np.ndarray) -> np.ndarray:
    """For each row the first row with the same key."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable
    ordered = keys[order]
    new = np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(axis=1)))[: len(keys)]
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))]
    return first


def _first_equal(first_R: np.ndarray) -> np.ndarray:
    """The same for rows that were chosen, from the first rows among all."""
    _, place, number = np.unique(first_R, return_index=True, return_inverse=True)
    return place[number]
