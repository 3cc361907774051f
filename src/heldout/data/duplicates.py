"""What belongs together among rows: the one definition that splits and checks share.

Exact and near duplicates, rows that share a long span or stand whole in another, rows with one
prompt, and rows with one long answer. See data/near.py, data/pairs.py and data/turns.py for each.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from heldout.core.lock import scratch_folder
from heldout.core.row import Row
from heldout.data.build_index import build_index
from heldout.data.index import Index, IndexedRow
from heldout.data.pairs import Components, Here
from heldout.data.relations import relations
from heldout.data.turns import turns_of


@dataclass(frozen=True)
class Duplicate:
    """Two rows that belong together, by their positions in the list that was searched; a < b."""

    row_a: int
    row_b: int
    kind: Literal["exact", "near", "span", "prompt", "answer", "paraphrase"]
    similarity: float  # Jaccard similarity of pieces; of a span its share of the shorter row; or 1


def find_duplicates(rows: Sequence[Row], threshold: float = 0.6) -> list[Duplicate]:
    """Pairs of rows with equal text, or with similarity at or above ``threshold``.

    Equal means equal after NFKC, case folding and collapsing of white space. Rows shorter than
    five tokens are only compared exactly. Pieces that stand in more than half of at least 20
    distinct rows, such as a system prompt or the frame of a prompt, are boilerplate: they count
    only in rows that hold nothing else.

    Not every pair is listed, but every cluster is connected: equal rows are paired with the first
    of them, which alone stands for them in near pairs, and clusters of more than 64 distinct rows
    have fewer pairs than all. The result depends on the texts alone. At most 1 in 50 pairs at the
    threshold is missed, 1 in 2,000 a tenth above it.
    """
    return [pair for pair in find_related(rows, threshold) if pair.kind in ("exact", "near")]


def find_related(rows: Sequence[Row], threshold: float = 0.6) -> list[Duplicate]:
    """The same, and pairs of rows that share a long span, a prompt or a long answer."""
    with index_of([rows], threshold) as index:
        return related(index)


def with_copies_joined(rows: Sequence[Row], threshold: float = 0.6) -> list[Row]:
    """The rows in groups that hold all copies of their rows, exact or near, as a split has them.

    30 copies of one row are one thing that was seen, not 30. A joined group has the name of the
    first of its groups.
    """
    together = Components(len(rows))
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        together.join(first.setdefault(row.group, place), place)
    with index_of([rows], threshold, by_turns=False) as index:
        for pair in related(index):
            if pair.kind in ("exact", "near"):
                together.join(pair.row_a, pair.row_b)
    name_of = {
        place: rows[min(places)].group for places in together.members.values() for place in places
    }
    return [replace(row, group=name_of.get(place, row.group)) for place, row in enumerate(rows)]


def related(index: Index) -> list[Duplicate]:
    """The relations of an index of one part, sorted."""
    found = [
        Duplicate(min(a.first, a.second), max(a.first, a.second), a.kind, a.similarity)
        for a in relations(index)
    ]
    return sorted(found, key=lambda pair: (pair.row_a, pair.row_b))


@contextmanager
def index_of(
    parts: Sequence[Iterable[Row]], threshold: float, by_turns: bool = True
) -> Iterator[Index]:
    """An index of rows in memory, part by part, in a temporary folder.

    by_turns: whether prompts and long answers join rows.
    """
    with scratch_folder("heldout-rows-") as folder:
        rows = (
            IndexedRow(part, row.index, "", row.group, row.text, turns_of(row) if by_turns else ())
            for part, each in enumerate(parts)
            for row in each
        )
        yield build_index(rows, folder, threshold=threshold, engine=Here(), look_for_faults=False)
