"""Rows on disk with their token codes, written in one pass; memory does not hold the texts."""

# R rows

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.progress import Progress
from heldout.data.pairs import Boilerplate, Engine, Span
from heldout.data.quality import TextFinding, examine
from heldout.data.shingles import Codes, normalized, text_key, token_codes

BATCH_CHARACTERS = 1_000_000
MOST_FINDINGS = 10_000  # of one sort that are kept


@dataclass(frozen=True)
class IndexedRow:
    """What is kept of a row; ``part`` 0 is training, 1 held-out, from 2 on named test sets."""

    part: int
    index: int  # in its source
    where: str
    group: str
    text: str


@dataclass
class Index:
    """Rows by position: 0, 1, ... in the order in which they were given."""

    folder: Path
    part_R: np.ndarray
    index_R: np.ndarray
    group_R: np.ndarray  # a number for each group
    num_characters_R: np.ndarray
    codes: Codes  # the codes lie in a file
    text_ends_R: np.ndarray
    about_ends_R: np.ndarray
    key_R: np.ndarray  # a hash of each text
    first_R: np.ndarray  # position of the first row with the same text
    findings: list[tuple[int, TextFinding]]  # the first MOST_FINDINGS of each sort
    finding_counts: Counter[tuple[str, str]]  # (kind, what): all, of training and held-out rows
    near: list[tuple[int, int, float]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    boilerplate: list[Boilerplate] = field(default_factory=list)
    label_R: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def text(self, position: int) -> str:
        """Read from disk."""
        return _piece(self.folder / "texts", self.text_ends_R, position)

    def where(self, position: int) -> str:
        return _piece(self.folder / "about", self.about_ends_R, position).partition("\0")[0]

    def group(self, position: int) -> str:
        return _piece(self.folder / "about", self.about_ends_R, position).partition("\0")[2]

    def __len__(self) -> int:
        return len(self.part_R)


def _piece(path: Path, ends_R: np.ndarray, position: int) -> str:
    start = int(ends_R[position - 1]) if position else 0
    with path.open("rb") as file:
        file.seek(start)
        return file.read(int(ends_R[position]) - start).decode("utf-8", "surrogatepass")


def _prepare(
    texts: list[str],
) -> tuple[bytes, np.ndarray, np.ndarray, list[tuple[int, TextFinding]]]:
    """Keys, codes, lengths and findings of a batch of texts."""
    plain = [normalized(text) for text in texts]
    keys = b"".join(text_key(text) for text, _ in plain)
    codes = token_codes(plain)
    findings = [(place, found) for place, text in enumerate(texts) for found in examine(text)]
    return keys, codes.codes_T, codes.lengths_R, findings


def write_index(
    rows: Iterable[IndexedRow], folder: Path, engine: Engine, progress: Progress
) -> Index:
    """Write texts and codes, and find equal texts by their keys; nothing is compared yet."""
    part, number, group = array("B"), array("L"), array("L")
    characters, text_ends, about_ends = array("L"), array("Q"), array("Q")
    groups: dict[tuple[bool, str], int] = {}
    lengths: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    findings: list[tuple[int, TextFinding]] = []
    finding_counts: Counter[tuple[str, str]] = Counter()

    def batches() -> Iterator[tuple[list[str]]]:
        text_end = about_end = size = 0
        texts: list[str] = []
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
                size += len(row.text)
                if size >= BATCH_CHARACTERS:
                    yield (texts,)
                    texts, size = [], 0
            if texts:
                yield (texts,)

    groups[(False, "")] = 0
    done = 0
    with (folder / "codes").open("wb") as code_file:
        for batch_keys, codes_T, lengths_R, found in engine.map(_prepare, batches()):
            code_file.write(codes_T.tobytes())
            keys.append(np.frombuffer(batch_keys, dtype=">u8").reshape(-1, 2).astype(np.uint64))
            lengths.append(lengths_R)
            for place, finding in found:
                if part[done + place] < 2:
                    sort = (finding.kind, finding.what)
                    finding_counts[sort] += 1
                    if finding_counts[sort] <= MOST_FINDINGS:
                        findings.append((done + place, finding))
            done += len(lengths_R)
            progress.advance(len(lengths_R))
    ends_R = np.cumsum(np.concatenate([np.zeros(0, dtype=np.int64), *lengths]))
    both_keys = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *keys])
    return Index(
        folder,
        np.array(part, dtype=np.uint8),
        np.array(number, dtype=np.int64),
        np.array(group, dtype=np.int64),
        np.array(characters, dtype=np.int64),
        Codes(_memory_map(folder / "codes", np.uint32), ends_R),
        np.array(text_ends, dtype=np.int64),
        np.array(about_ends, dtype=np.int64),
        both_keys[:, 0].copy(),
        _first_of(both_keys),
        findings,
        finding_counts,
    )


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
