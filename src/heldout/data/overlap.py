"""How training rows relate to held-out rows and to one another, read as streams.

Memory and disk as in data/build_index.py; the texts are held in a temporary folder.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heldout.core.lock import scratch_folder
from heldout.core.progress import Progress
from heldout.core.row import Row
from heldout.data.build_index import build_index
from heldout.data.duplicates import find_related
from heldout.data.index import Index, IndexedRow
from heldout.data.pairs import Components, Here
from heldout.data.relations import relations
from heldout.data.stream import RowStream, nothing_to_train_on
from heldout.data.turns import turns_of

PARTS = ("train", "heldout")
MOST_ENDS_READ = 100  # of the rows at a limit
ENDS = tuple(".!?\"'”’»)]}>`*_。！？」』）…")  # that a whole text may have


@dataclass(frozen=True)
class Overlap:
    """Rows are named by their place in their source, as ``Row.index`` is."""

    num_train_rows: int  # that can be trained on
    num_distinct: int  # of these: clusters of exact and near duplicates
    num_heldout_rows: int  # all, also those that cannot be read
    leaked: frozenset[int]  # held-out rows that repeat a training row or share a long span with one
    copies: dict[int, int]  # training row that is repeated -> times it stands there
    warnings: tuple[str, ...]

    @property
    def duplicate_share(self) -> float:
        """Of the training rows, those that repeat another."""
        return 1 - self.num_distinct / max(1, self.num_train_rows)

    @property
    def leaked_share(self) -> float:
        """Of the held-out rows, those that stand in the training rows."""
        return len(self.leaked) / max(1, self.num_heldout_rows)


def find_overlap(
    train: RowStream,
    heldout: RowStream,
    *,
    threshold: float,
    by_turns: bool = True,
    progress: Progress | None = None,
) -> Overlap:
    """Compare two sources, of which no row is held in memory.

    ``threshold`` is the Jaccard similarity of near duplicates, ``by_turns`` whether a prompt or a
    long answer in common relates rows. Raises UserError where no row of
    ``train`` can be trained on.
    """
    progress = progress or Progress()
    num_rows: Counter[str] = Counter()
    faults: list[tuple[str, str]] = []  # where, and what: of the first training row that has one

    def rows() -> Iterator[IndexedRow]:
        for part, (name, stream) in enumerate(zip(PARTS, (train, heldout), strict=True)):
            for item in stream:
                num_rows[name] += 1
                if item.row is not None:
                    row = item.row
                    turns = turns_of(row) if by_turns else ()
                    yield IndexedRow(part, item.index, item.where, row.group, row.text, turns)
                elif part == 0 and item.fault is not None and not faults:
                    faults.append((item.where, item.fault.message))

    with scratch_folder("heldout-check-") as folder:
        index = build_index(rows(), folder, threshold=threshold, engine=Here(), progress=progress)
        if not (index.part_R == 0).any():
            raise nothing_to_train_on(num_rows["train"], *faults[0])
        place_R, part_R = index.index_R, index.part_R
        copies = Components(len(index))
        leaked: set[int] = set()
        with progress.stage("what the rows tell"):
            for found in relations(index):
                if part_R[found.first] != part_R[found.second]:
                    leaked.add(int(place_R[found.second]))
                elif part_R[found.first] == 0 and found.kind not in ("prompt", "answer"):
                    copies.join(found.first, found.second)
        cuts = [
            cut_rows(name, index, np.flatnonzero(part_R == part))[1]
            for part, name in enumerate(PARTS)
        ]
    return Overlap(
        num_train_rows=int((part_R == 0).sum()),
        num_distinct=len(np.unique(index.label_R[part_R == 0])),
        num_heldout_rows=num_rows["heldout"],
        leaked=frozenset(leaked),
        copies={
            int(place_R[position]): len(together)
            for together in copies.members.values()
            for position in together
        },
        warnings=tuple(filter(None, cuts)),
    )


def cut_rows(part: str, index: Index, rows: np.ndarray) -> tuple[int, str]:
    """How many rows of a part look cut at one limit, and a warning of it; 0 and "" for none.

    They have one length, the most of all, and most of them end within a sentence: rows that a
    program wrote to one length end as they should. ``rows`` are positions in the index.
    """
    num_characters_R = index.num_characters_R[rows]
    if not len(num_characters_R):
        return 0, ""
    longest = int(num_characters_R.max())
    num = int((num_characters_R == longest).sum())
    if longest < 100 or num < max(5, 0.01 * len(num_characters_R)):
        return 0, ""
    at_limit = rows[num_characters_R == longest][:MOST_ENDS_READ].tolist()
    num_whole = sum(index.text(row).rstrip().endswith(ENDS) for row in at_limit)
    if num_whole > len(at_limit) / 2:
        return 0, ""
    return num, (
        f"{num:,} {part} rows have exactly {longest:,} characters, the most of all: they look cut "
        "off. A model that learns from cut rows learns not to stop."
    )


def unrelated(rows: list[Row], train: list[Row], threshold: float) -> list[Row]:
    """Those of ``rows`` that neither repeat a training row nor share a long span with one."""
    pairs = find_related([*train, *rows], threshold)
    related = {p.row_b - len(train) for p in pairs if p.row_a < len(train) <= p.row_b}
    return [row for place, row in enumerate(rows) if place not in related]
