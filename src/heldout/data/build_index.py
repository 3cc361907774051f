"""All rows of some sources on disk, and which of them say the same; memory does not hold the texts.

Pass 1 writes texts, their token codes and pieces of letters, and finds equal texts by their keys.
Pass 2 reads the codes of different texts again and writes MinHash signatures in bands, and
winnowed span hashes, in files by their remainder. Bands and remainders are then compared one at a
time.

Memory: about 150 bytes a row, 24 for each turn of a conversation, a batch, and the pairs that are
found. Disk: the text once more, twice its size in codes and pieces, and 500 bytes a row.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.progress import Progress
from heldout.data.index import Index, IndexedRow, write_index
from heldout.data.near import NearPair, near_pairs
from heldout.data.pairs import (
    BOILERPLATE_SPAN_ROWS,
    Boilerplate,
    Components,
    Engine,
    Span,
    contained_spans,
    shared_spans,
)
from heldout.data.pieces import FEW_PIECES
from heldout.data.shingles import token_places
from heldout.data.short_copies import are_short_copies
from heldout.data.sketch import Sketch, frame_texts, sketch_texts, span_entries
from heldout.data.turns import shared_turns


def build_index(
    rows: Iterable[IndexedRow],
    folder: Path,
    *,
    threshold: float,
    engine: Engine,
    progress: Progress | None = None,
    look_for_faults: bool = True,
) -> Index:
    """Index and compare; ``folder`` must exist and be empty, and is the caller's to delete.

    Compared are training rows with all others, and held-out rows among themselves.
    """
    progress = progress or Progress()
    with progress.stage("reading"):
        index = write_index(rows, folder, engine, progress, look_for_faults)
    compare(index, index.text, threshold, engine, progress)
    return index


def compare(
    index: Index,
    text_of: Callable[[int], str],
    threshold: float,
    engine: Engine,
    progress: Progress,
) -> None:
    """Fill in what texts have in common; the files of the comparison go to the index's folder.

    ``text_of`` reads the text of a row of the index.
    """
    originals = np.flatnonzero(index.first_R == np.arange(len(index)))
    clusters = Components(len(index))
    with progress.stage("comparing", total=len(originals)):
        sketch = sketch_texts(index, originals, threshold, engine, progress)
    with progress.stage("near duplicates"):
        pairs, was_framed = near_pairs(
            index.pieces,
            sketch.signatures,
            sketch.texts,
            threshold,
            sketch.boilerplate,
            frame_texts(index),
            engine,
        )
        _add_near(index, clusters, pairs, text_of, threshold)
    index.near.sort()
    with progress.stage("shared spans"):
        index.spans, index.boilerplate = shared_spans(
            index.codes,
            span_entries(index, clusters),
            engine,
            lambda a, b: _wanted(index.part_R[a], index.part_R[b]),
        )
        _add_contained(index, sketch, clusters)
    index.shared, index.usual_turns = shared_turns(index.turns, index.first_R, clusters.label)
    index.was_excused = bool(
        was_framed or len(sketch.boilerplate) or index.boilerplate or index.usual_turns
    )
    copies = np.flatnonzero(index.first_R != np.arange(len(index)))
    for copy in copies.tolist():
        clusters.join(int(index.first_R[copy]), copy)
    index.label_R = clusters.label


def _add_near(
    index: Index,
    clusters: Components,
    pairs: list[NearPair],
    text_of: Callable[[int], str],
    threshold: float,
) -> None:
    """Pairs of short texts are looked at again."""
    a, b = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    num_pieces_R = index.pieces.lengths_R
    short = np.flatnonzero(np.minimum(num_pieces_R[a], num_pieces_R[b]) < FEW_PIECES)
    kept = np.ones(len(pairs), dtype=bool)
    kept[short] = are_short_copies(text_of, a[short].tolist(), b[short].tolist(), threshold)
    clusters.join_all(a[kept], b[kept])
    kept &= _wanted(index.part_R[a], index.part_R[b])
    for place in np.flatnonzero(kept).tolist():
        first, second, similarity = pairs[place]
        index.near.append((min(first, second), max(first, second), similarity))


def _wanted(part_a: Any, part_b: Any) -> Any:
    return (part_a == 0) | (part_b == 0) | ((part_a == 1) & (part_b == 1))


def _add_contained(index: Index, sketch: Sketch, clusters: Components) -> None:
    """Short rows that stand whole in other rows, but not in many of them."""
    hits = sketch.hits
    start = np.searchsorted(sketch.short_hashes, hits["hash"], side="left")
    stop = np.searchsorted(sketch.short_hashes, hits["hash"], side="right")
    owner = token_places(start, stop - start)
    hit = np.repeat(np.arange(len(hits)), stop - start)
    columns = [
        hits["text"][hit].astype(np.int64),
        hits["position"][hit].astype(np.int64),
        sketch.short_texts[owner],
        sketch.short_positions[owner],
    ]
    found = np.stack(columns, axis=1)
    apart = clusters.label[found[:, 0]] != clusters.label[found[:, 2]]
    found = found[apart & _wanted(index.part_R[found[:, 0]], index.part_R[found[:, 2]])]
    holders: dict[int, set[int]] = {}
    spans: dict[int, list[Span]] = {}
    for span, short in contained_spans(index.codes, found):
        holder = span.text_a + span.text_b - short
        holders.setdefault(short, set()).add(int(clusters.label[holder]))
        spans.setdefault(short, []).append(span)
    known = {(span.text_a, span.text_b) for span in index.spans}
    for short, labels in holders.items():
        if len(labels) < BOILERPLATE_SPAN_ROWS:
            index.spans += [
                span for span in spans[short] if (span.text_a, span.text_b) not in known
            ]
        else:
            length = spans[short][0].length
            index.boilerplate.append(Boilerplate(short, 0, length, len(labels)))
    index.spans.sort(key=lambda span: (span.text_a, span.text_b))
    index.boilerplate.sort(key=lambda each: (-each.num_texts, each.text, each.start))
