"""From pairs of texts to pairs of rows: duplicates within a part, and leaks between two."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heldout.data.index import Index
from heldout.data.pairs import Span


@dataclass(frozen=True)
class Relation:
    """Two rows by position, training rows first, else in their order."""

    kind: Literal["exact", "near", "span", "prompt", "answer", "paraphrase"]
    first: int
    second: int
    # 1 for prompt and answer, which are equal; cosine of a paraphrase; of a span see Duplicate
    similarity: float
    span: Span | None = None


def relations(index: Index) -> Iterator[Relation]:
    """All rows that are involved, each at least once; not all pairs of them.

    Within a part a row is paired with the first row of the other text. Between parts each row is
    paired with the first one of the other part. Exact relations come first, then near ones, spans,
    then prompts and answers that rows have in common which are no near duplicates, and at last
    paraphrases.
    """
    order = np.argsort(index.first_R, kind="stable")
    firsts = index.first_R[order]
    copied = np.unique(index.first_R[index.first_R != np.arange(len(index))]).tolist()
    several = set(copied)

    def rows_by_part(text: int) -> dict[int, list[int]]:
        if text not in several:
            return {int(index.part_R[text]): [text]}
        start, stop = np.searchsorted(firsts, [text, text + 1])
        found: dict[int, list[int]] = {}
        for position in order[start:stop].tolist():
            found.setdefault(int(index.part_R[position]), []).append(position)
        return found

    for text in copied:
        parts = rows_by_part(text)
        for rows in parts.values():
            if index.part_R[rows[0]] < 2:
                yield from (Relation("exact", rows[0], row, 1.0) for row in rows[1:])
        for part, rows in parts.items():
            if part and 0 in parts:
                for a, b in _crossed(parts[0], rows):
                    yield Relation("exact", a, b, 1.0)
    for text_a, text_b, similarity in index.near:
        for a, b in _between(rows_by_part(text_a), rows_by_part(text_b)):
            yield Relation("near", a, b, similarity)
    lengths_R = index.codes.lengths_R
    for span in index.spans:
        shorter = min(int(lengths_R[span.text_a]), int(lengths_R[span.text_b]))
        for a, b in _between(rows_by_part(span.text_a), rows_by_part(span.text_b)):
            yield Relation("span", a, b, span.length / shorter, span)
    for each in index.shared:
        by_part: dict[int, list[int]] = {}
        for text in each.texts:
            for part, rows in rows_by_part(text).items():
                by_part.setdefault(part, []).extend(rows)
        for a, b in _joined(by_part):
            if index.label_R[a] != index.label_R[b]:
                yield Relation(each.kind, a, b, 1.0)
    for text_a, text_b, similarity in index.paraphrases:
        for a, b in _between(rows_by_part(text_a), rows_by_part(text_b)):
            yield Relation("paraphrase", a, b, similarity)


def _joined(by_part: dict[int, list[int]]) -> Iterator[tuple[int, int]]:
    """All rows of a part with its first, and those of two parts."""
    for part, rows in by_part.items():
        rows.sort()
        if part < 2:
            yield from ((rows[0], row) for row in rows[1:])
    for part, rows in by_part.items():
        if part and 0 in by_part:
            yield from _crossed(by_part[0], rows)


def _between(left: dict[int, list[int]], right: dict[int, list[int]]) -> Iterator[tuple[int, int]]:
    for part in (0, 1):
        if part in left and part in right:
            yield min(left[part][0], right[part][0]), max(left[part][0], right[part][0])
    for one, other in ((left, right), (right, left)):
        for part, rows in other.items():
            if part and 0 in one:
                yield from _crossed(one[0], rows)


def _crossed(train: list[int], others: list[int]) -> Iterator[tuple[int, int]]:
    yield from ((row, others[0]) for row in train)
    yield from ((train[0], row) for row in others[1:])
