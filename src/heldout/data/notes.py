"""What the user should know of how rows were grouped: what did not join rows, and giant groups."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from heldout.data.index import Index
from heldout.data.pairs import Components
from heldout.data.turns import ANSWER, PROMPT, most_rows

GIANT, LEAST_GIANT = 0.25, 10  # of the rows, and rows, in one group from which on it is told


def group_notes(
    index: Index,
    components: Components,
    train: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    mode: Literal["split", "cross_validation", "refused"],
) -> tuple[str, ...]:
    """Sentences about prompts and answers that join no rows, and about one giant group.

    ``train`` are the positions of the rows that are dealt out, ``pairs`` what joined rows.
    """
    giant = giant_note(components, train, pairs, mode)
    return tuple(note for note in (*boilerplate_notes(index), giant) if note)


def boilerplate_notes(index: Index) -> list[str]:
    """Of prompts and answers that stand in too many rows to join them."""
    num_texts = int((index.first_R == np.arange(len(index))).sum())
    most = most_rows(num_texts)
    notes = []
    rules: tuple[tuple[str, str, str], ...] = (
        (
            "prompt",
            "prompt",
            f"more than {most[PROMPT]:,} different rows (5 %, at least 10, at most 100)",
        ),
        ("answer", "long answer", f"more than {most[ANSWER]} different rows"),
    )
    for kind, what, rule in rules:
        sizes = [len(each.texts) for each in index.usual_turns if each.kind == kind]
        if not sizes:
            continue
        note = (
            f"{len(sizes):,} {what}s stand in {rule}, the most common in {max(sizes):,} of "
            f"{num_texts:,}: they count as boilerplate and join no rows."
            if len(sizes) > 1
            else f"One {what} stands in {rule}, in {max(sizes):,} of {num_texts:,}: it counts as "
            "boilerplate and joins no rows."
        )
        notes.append(f"{note} Where such rows belong together, name their column with data.group.")
    return notes


def giant_note(
    components: Components,
    train: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    mode: Literal["split", "cross_validation", "refused"],
) -> str:
    """Of a group that holds a quarter of the rows or more; empty where there is none."""
    if not train:
        return ""
    (label, size), *_ = Counter(components.label[list(train)].tolist()).most_common(1)
    if size < max(LEAST_GIANT, GIANT * len(train)):
        return ""
    measured = {
        "split": "It stays in training; what is measured tells of the other groups.",
        "cross_validation": "Cross-validation holds it out whole, once; the other folds tell of "
        "the other groups.",
        "refused": "Nothing can be measured on rows that the model has not seen.",
    }[mode]
    holds = f"One group holds {size:,} of {len(train):,} rows ({size / len(train):.0%})."
    return f"{holds} {measured}{_hub(components, int(label), size, pairs)}"


def _hub(components: Components, label: int, size: int, pairs: Sequence[tuple[int, int]]) -> str:
    """Whether one row alone joins most of a group, by what it holds of them."""
    own = [pair for pair in pairs if components.label[pair[0]] == label]
    if not own:
        return ""
    (hub, _), *_ = Counter(row for pair in own for row in pair).most_common(1)
    without = Components(len(components.label))
    for a, b in own:
        if hub not in (a, b):
            without.join(a, b)
    members = components.members.get(label, [label])
    num = len({int(without.label[row]) for row in members if row != hub})
    if num < size / 2:
        return ""
    return f" Row {hub + 1} alone joins them: without it they are {num:,} groups."
