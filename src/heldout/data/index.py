"""All rows of some sources on disk, and which of them say the same; memory does not hold the texts.

Pass 1 writes texts and their token codes and finds equal texts by their keys. Pass 2 reads the
codes of different texts again and writes MinHash signatures, a file per band, and winnowed span
hashes, in files by their remainder. Bands and remainders are then compared one at a time.

Memory: about 150 bytes a row, a batch, and the pairs that are found. Disk: the text once more,
.7 of it in codes, and 500 bytes a row.
"""

# R rows, B bands of K hash functions

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.progress import Progress
from heldout.data.pairs import (
    BOILERPLATE_SAMPLE,
    BOILERPLATE_SPAN_ROWS,
    Boilerplate,
    Components,
    Engine,
    Entries,
    Span,
    boilerplate_shingles,
    contained_spans,
    hashes_per_band,
    in_bands,
    near_pairs,
    shared_spans,
)
from heldout.data.quality import TextFinding, examine
from heldout.data.shingles import (
    SHINGLE,
    Codes,
    contained_keys,
    fingerprints,
    normalized,
    occurrences,
    slices,
    text_key,
    token_codes,
)

BATCH_CHARACTERS = 1_000_000
BATCH_TOKENS = 200_000
MOST_FINDINGS = 10_000  # of one sort that are kept
NUM_RANGES = 64  # files that span hashes are divided into
_ENTRY = np.dtype([("hash", "u8"), ("text", "u4"), ("position", "u4")])
_HIT = np.dtype([("text", "u4"), ("position", "u4"), ("hash", "u8")])


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


def build_index(
    rows: Iterable[IndexedRow],
    folder: Path,
    *,
    threshold: float,
    engine: Engine,
    progress: Progress | None = None,
) -> Index:
    """Index and compare; ``folder`` must exist and be empty, and is the caller's to delete.

    Compared are training rows with all others, and held-out rows among themselves.
    """
    progress = progress or Progress()
    with progress.stage("reading"):
        index = _read(rows, folder, engine, progress)
    originals = np.flatnonzero(index.first_R == np.arange(len(index)))
    clusters = Components(len(index))
    with progress.stage("comparing", total=len(originals)):
        sketch = _sketch(index, originals, threshold, engine, progress)
    with progress.stage("near duplicates"):
        pairs = near_pairs(
            index.codes, sketch.signatures, sketch.texts, threshold, sketch.boilerplate, engine
        )
        for a, b, similarity in pairs:
            clusters.join(a, b)
            if _wanted(index.part_R[a], index.part_R[b]):
                index.near.append((min(a, b), max(a, b), similarity))
    index.near.sort()
    with progress.stage("shared spans"):
        index.spans, index.boilerplate = shared_spans(
            index.codes,
            _ranges(index, clusters),
            engine,
            lambda a, b: _wanted(index.part_R[a], index.part_R[b]),
        )
        _add_contained(index, sketch, clusters)
    copies = np.flatnonzero(index.first_R != np.arange(len(index)))
    for copy in copies.tolist():
        clusters.join(int(index.first_R[copy]), copy)
    index.label_R = clusters.label
    return index


def _wanted(part_a: Any, part_b: Any) -> Any:
    return (part_a == 0) | (part_b == 0) | ((part_a == 1) & (part_b == 1))


def _piece(path: Path, ends_R: np.ndarray, position: int) -> str:
    start = int(ends_R[position - 1]) if position else 0
    with path.open("rb") as file:
        file.seek(start)
        return file.read(int(ends_R[position]) - start).decode("utf-8", "surrogatepass")


# Pass 1


def _prepare(
    texts: list[str],
) -> tuple[bytes, np.ndarray, np.ndarray, list[tuple[int, TextFinding]]]:
    """Keys, codes, lengths and findings of a batch of texts."""
    plain = [normalized(text) for text in texts]
    keys = b"".join(text_key(text) for text, _ in plain)
    codes = token_codes(plain)
    findings = [(place, found) for place, text in enumerate(texts) for found in examine(text)]
    return keys, codes.codes_T, codes.lengths_R, findings


def _read(rows: Iterable[IndexedRow], folder: Path, engine: Engine, progress: Progress) -> Index:
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


# Pass 2


@dataclass(frozen=True)
class _Sketch:
    texts: np.ndarray  # positions of the rows that have a signature
    signatures: np.ndarray  # (B, R, K), in a file
    boilerplate: np.ndarray
    short_texts: np.ndarray  # positions of short rows that are looked for in training rows
    short_positions: np.ndarray
    short_hashes: np.ndarray  # sorted
    hits: np.ndarray  # _HIT: where they were found


def _sketch_batch(
    codes: Codes, boilerplate: np.ndarray, per_band: int, wanted: np.ndarray
) -> tuple[np.ndarray, Any, Any]:
    long = np.flatnonzero(codes.lengths_R >= SHINGLE)
    bands = in_bands(codes.chosen(long), boilerplate, per_band)
    return bands, fingerprints(codes), occurrences(codes, wanted) if len(wanted) else None


def _sketch(
    index: Index, originals: np.ndarray, threshold: float, engine: Engine, progress: Progress
) -> _Sketch:
    lengths_R = index.codes.lengths_R
    texts = originals[lengths_R[originals] >= SHINGLE]
    boilerplate = boilerplate_shingles(index.codes.chosen(_sample(index, texts)))
    per_band = hashes_per_band(threshold)
    num_bands = 128 // per_band
    shape = (num_bands, len(texts), per_band)
    signatures = np.zeros(shape, dtype=np.uint16)
    if len(texts):
        signatures = np.memmap(index.folder / "bands", dtype=np.uint16, mode="w+", shape=shape)
        signatures = signatures.view(np.ndarray)
    others = originals[index.part_R[originals] > 0]
    short = contained_keys(index.codes.chosen(others))
    order = np.argsort(short.hashes_N, kind="stable")
    hashes = short.hashes_N[order]
    wanted = np.unique(hashes)
    runs = list(slices(lengths_R[originals], BATCH_TOKENS))
    todo = (
        (index.codes.chosen(originals[start:stop]), boilerplate, per_band, wanted)
        for start, stop in runs
    )
    hits, written = [np.zeros(0, dtype=_HIT)], 0
    paths = [index.folder / f"spans-{number:02d}" for number in range(NUM_RANGES)]
    files = [path.open("wb") for path in paths]
    try:
        for (start, stop), (bands, kept, found) in zip(
            runs, engine.map(_sketch_batch, todo), strict=True
        ):
            signatures[:, written : written + bands.shape[1]] = bands
            written += bands.shape[1]
            entries = np.zeros(len(kept.hashes_N), dtype=_ENTRY)
            entries["hash"], entries["position"] = kept.hashes_N, kept.positions_N
            entries["text"] = originals[start + kept.texts_N]
            _append(entries, files)
            if found is not None and len(found.hashes_N):
                hit = np.zeros(len(found.hashes_N), dtype=_HIT)
                hit["hash"], hit["position"] = found.hashes_N, found.positions_N
                hit["text"] = originals[start + found.texts_N]
                hits.append(hit[index.part_R[hit["text"]] == 0])
            progress.advance(stop - start)
    finally:
        for file in files:
            file.close()
    return _Sketch(
        texts,
        signatures,
        boilerplate,
        others[short.texts_N[order]],
        short.positions_N[order],
        hashes,
        np.concatenate(hits),
    )


def _sample(index: Index, texts: np.ndarray) -> np.ndarray:
    """Texts that stand for all, whatever the order of the rows: those of the least hashes."""
    if len(texts) <= BOILERPLATE_SAMPLE:
        return texts
    starts = index.codes.ends_R[texts] - index.codes.lengths_R[texts]
    keys = np.zeros(len(texts), dtype=np.uint64)
    for offset in range(SHINGLE):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + index.codes.codes_T[starts + offset]
    keys = (keys ^ (keys >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return texts[np.sort(np.argsort(keys, kind="stable")[:BOILERPLATE_SAMPLE])]


def _append(entries: np.ndarray, files: list) -> None:
    # By the low bits: the least of many hashes have few high ones.
    range_of = (entries["hash"] % np.uint64(NUM_RANGES)).astype(np.int64)
    order = np.argsort(range_of, kind="stable")
    bounds = np.searchsorted(range_of[order], np.arange(NUM_RANGES + 1))
    ordered = entries[order]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        if stop > start:
            files[number].write(ordered[start:stop].tobytes())


def _ranges(index: Index, clusters: Components) -> Iterator[np.ndarray]:
    for number in range(NUM_RANGES):
        stored = np.fromfile(index.folder / f"spans-{number:02d}", dtype=_ENTRY)
        entries = np.zeros(len(stored), dtype=Entries)
        for name in ("hash", "text", "position"):
            entries[name] = stored[name]
        entries["label"] = clusters.label[stored["text"]]
        entries["part"] = index.part_R[stored["text"]]
        yield entries


def _add_contained(index: Index, sketch: _Sketch, clusters: Components) -> None:
    """Short rows of the other parts that stand whole in training rows, but not in many of them."""
    hits = sketch.hits
    start = np.searchsorted(sketch.short_hashes, hits["hash"], side="left")
    stop = np.searchsorted(sketch.short_hashes, hits["hash"], side="right")
    owner = np.repeat(start, stop - start) + _counting(stop - start)
    hit = np.repeat(np.arange(len(hits)), stop - start)
    columns = [
        hits["text"][hit].astype(np.int64),
        hits["position"][hit].astype(np.int64),
        sketch.short_texts[owner],
        sketch.short_positions[owner],
    ]
    found = np.stack(columns, axis=1)
    found = found[clusters.label[found[:, 0]] != clusters.label[found[:, 2]]]
    spans = contained_spans(index.codes, found)
    holders: dict[int, set[int]] = {}
    examples: dict[int, Span] = {}
    for span in spans:
        short = _short_of(index, span)
        holder = span.text_a + span.text_b - short
        holders.setdefault(short, set()).add(int(clusters.label[holder]))
        examples.setdefault(short, span)
    for span in spans:
        short = _short_of(index, span)
        if len(holders[short]) < BOILERPLATE_SPAN_ROWS:
            index.spans.append(span)
    for short, labels in holders.items():
        if len(labels) >= BOILERPLATE_SPAN_ROWS:
            length = examples[short].length
            index.boilerplate.append(Boilerplate(short, 0, length, len(labels)))
    index.spans.sort(key=lambda span: (span.text_a, span.text_b))
    index.boilerplate.sort(key=lambda each: (-each.num_texts, each.text, each.start))


def _short_of(index: Index, span: Span) -> int:
    return span.text_a if index.part_R[span.text_a] > 0 else span.text_b


def _counting(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... for each count, one after another."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
