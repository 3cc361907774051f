"""Rows that a check of two parts alone would find, though all rows together excuse them.

What ten rows hold is boilerplate, but a part may hold nine of them. Whoever deals rows out looks
again, with the eyes of a check, and joins what is found.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from heldout.core.lock import scratch_folder
from heldout.core.progress import Progress
from heldout.data.build_index import compare
from heldout.data.index import Index
from heldout.data.pairs import Here
from heldout.data.relations import relations

MOST_ROUNDS = 20  # of dealing out and looking again


def straddling(
    index: Index, train: Sequence[int], others: Sequence[Sequence[int]], threshold: float
) -> Iterator[tuple[int, int]]:
    """Pairs of a training row and a row of another part that these two parts alone have in common.

    ``index`` holds all rows as one part, so that all were compared. Where nothing was excused as
    boilerplate, no two parts can have anything in common that was not found. Cost: two more
    comparisons of all rows.
    """
    if not index.was_excused:
        return
    for other in others:
        if not len(other):
            continue
        rows = np.array([*train, *other], dtype=np.int64)
        part_R = np.repeat([0, 1], [len(train), len(other)])
        with scratch_folder("heldout-parts-") as folder:
            both = index.chosen(rows, part_R, folder)
            text_of = partial(_text, index, rows)
            compare(both, text_of, threshold, Here(), Progress())
            for found in relations(both):
                if part_R[found.first] != part_R[found.second]:
                    yield int(rows[found.first]), int(rows[found.second])


def _text(index: Index, rows: np.ndarray, row: int) -> str:
    return index.text(int(rows[row]))
