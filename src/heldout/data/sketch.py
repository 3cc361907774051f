"""What stands for each text when texts are compared: MinHash bands, span hashes, short texts.

The codes of different texts are read once more. Signatures go to one file, winnowed span hashes to
files by their remainder, which are then compared one at a time.
"""

# R rows, B bands of K hash functions

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from heldout.core.progress import Progress
from heldout.data.index import Index
from heldout.data.near import (
    BOILERPLATE_SAMPLE,
    FrameTexts,
    boilerplate_pieces,
    hashes_per_band,
    in_bands,
)
from heldout.data.pairs import (
    BOILERPLATE_SPAN_ROWS,
    Components,
    Engine,
    Entries,
    changes,
)
from heldout.data.shingles import (
    LEAST_TOKENS,
    Codes,
    contained_keys,
    fingerprints,
    occurrences,
    slices,
)

BATCH_TOKENS = 200_000
NUM_RANGES = 64  # files that span hashes are divided into
_ENTRY = np.dtype([("hash", "u8"), ("text", "u4"), ("position", "u4")])
_HIT = np.dtype([("text", "u4"), ("position", "u4"), ("hash", "u8")])


@dataclass(frozen=True)
class Sketch:
    """Of all different texts of an index."""

    texts: np.ndarray  # positions of the rows that have a signature
    signatures: np.ndarray  # (R, B, K), in a file
    boilerplate: np.ndarray
    short_texts: np.ndarray  # positions of short rows that are looked for in others
    short_positions: np.ndarray
    short_hashes: np.ndarray  # sorted
    hits: np.ndarray  # _HIT: where they were found


def _sketch_batch(
    codes: Codes, pieces: Codes, boilerplate: np.ndarray, per_band: int, wanted: np.ndarray
) -> tuple[np.ndarray, Any, Any]:
    long = np.flatnonzero(_can_be_near(codes, pieces))
    bands = in_bands(pieces.chosen(long), boilerplate, per_band)
    return bands, fingerprints(codes), occurrences(codes, wanted) if len(wanted) else None


def _can_be_near(codes: Codes, pieces: Codes) -> np.ndarray:
    return (codes.lengths_R >= LEAST_TOKENS) & (pieces.lengths_R > 0)


def sketch_texts(
    index: Index, originals: np.ndarray, threshold: float, engine: Engine, progress: Progress
) -> Sketch:
    """``originals`` are the positions of different texts, ``threshold`` that of near duplicates."""
    lengths_R = index.codes.lengths_R
    texts = originals[_can_be_near(index.codes, index.pieces)[originals]]
    boilerplate = boilerplate_pieces(index.pieces.chosen(_sample(index, texts)))
    per_band = hashes_per_band(threshold)
    num_bands = 128 // per_band
    shape = (len(texts), num_bands, per_band)
    signatures = np.zeros(shape, dtype=np.uint16)
    if len(texts):
        signatures = np.memmap(index.folder / "bands", dtype=np.uint16, mode="w+", shape=shape)
        signatures = signatures.view(np.ndarray)
    short = contained_keys(index.codes.chosen(originals))
    order = np.argsort(short.hashes_N, kind="stable")
    hashes = short.hashes_N[order]
    wanted = np.unique(hashes)
    runs = list(slices(lengths_R[originals], BATCH_TOKENS))
    todo = (
        (
            index.codes.chosen(originals[start:stop]),
            index.pieces.chosen(originals[start:stop]),
            boilerplate,
            per_band,
            wanted,
        )
        for start, stop in runs
    )
    hits, written = [np.zeros(0, dtype=_HIT)], 0
    paths = [index.folder / f"spans-{number:02d}" for number in range(NUM_RANGES)]
    files = [path.open("wb") for path in paths]
    try:
        for (start, stop), (bands, kept, found) in zip(
            runs, engine.map(_sketch_batch, todo), strict=True
        ):
            signatures[written : written + len(bands)] = bands
            written += len(bands)
            entries = np.zeros(len(kept.hashes_N), dtype=_ENTRY)
            entries["hash"], entries["position"] = kept.hashes_N, kept.positions_N
            entries["text"] = originals[start + kept.texts_N]
            _append(entries, files)
            if found is not None and len(found.hashes_N):
                hit = np.zeros(len(found.hashes_N), dtype=_HIT)
                hit["hash"], hit["position"] = found.hashes_N, found.positions_N
                hit["text"] = originals[start + found.texts_N]
                hits.append(hit[index.part_R[hit["text"]] < 2])
            progress.advance(stop - start)
    finally:
        for file in files:
            file.close()
    return Sketch(
        texts,
        signatures,
        boilerplate,
        originals[short.texts_N[order]],
        short.positions_N[order],
        hashes,
        np.concatenate(hits),
    )


def _sample(index: Index, texts: np.ndarray) -> np.ndarray:
    """Texts that stand for all, whatever the order of the rows: those of the least hashes."""
    if len(texts) <= BOILERPLATE_SAMPLE:
        return texts
    starts = index.codes.starts_of(texts)
    keys = np.zeros(len(texts), dtype=np.uint64)
    for offset in range(LEAST_TOKENS):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + index.codes.codes_T[starts + offset]
    keys = (keys ^ (keys >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return texts[np.sort(np.argsort(keys, kind="stable")[:BOILERPLATE_SAMPLE])]


def _append(entries: np.ndarray, files: Sequence[BinaryIO]) -> None:
    # By the low bits: the least of many hashes have few high ones.
    range_of = (entries["hash"] % np.uint64(NUM_RANGES)).astype(np.int64)
    order = np.argsort(range_of, kind="stable")
    bounds = np.searchsorted(range_of[order], np.arange(NUM_RANGES + 1))
    ordered = entries[order]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        if stop > start:
            files[number].write(ordered[start:stop].tobytes())


def span_entries(index: Index, clusters: Components) -> Iterator[np.ndarray]:
    """Entries of one range of hashes at a time, with the cluster and part of their texts."""
    for number in range(NUM_RANGES):
        stored = np.fromfile(index.folder / f"spans-{number:02d}", dtype=_ENTRY)
        entries = np.zeros(len(stored), dtype=Entries)
        for name in ("hash", "text", "position"):
            entries[name] = stored[name]
        entries["label"] = clusters.label[stored["text"]]
        entries["part"] = index.part_R[stored["text"]]
        yield entries


def frame_texts(index: Index) -> FrameTexts:
    """Texts that hold the same kept hash, where ten or more of them do."""
    found = [np.zeros(0, dtype=_ENTRY)]
    for number in range(NUM_RANGES):
        stored = np.fromfile(index.folder / f"spans-{number:02d}", dtype=_ENTRY)
        stored = stored[np.argsort(stored["hash"], kind="stable")]
        starts = np.flatnonzero(changes(stored["hash"])) if len(stored) else found[0]["text"]
        sizes = np.diff(np.append(starts, len(stored)))
        found.append(stored[np.repeat(sizes >= BOILERPLATE_SPAN_ROWS, sizes)])
    entries = np.concatenate(found)
    entries = entries[np.argsort(entries["text"], kind="stable")]
    return FrameTexts(entries["text"].astype(np.int64), entries["hash"])
