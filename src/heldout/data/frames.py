"""Rows made from one frame, which held-out rows are not: planted secrets, and answers all alike.

Both look like something else (a shift, wrong rows, duplicates) to whatever counts words and losses.
"""

from collections.abc import Sequence

import regex

from heldout.core.row import Row, learned_texts
from heldout.core.segments import folded

_WORD = regex.compile(r"\w+")
_DIGITS = regex.compile(r"\p{N}+")
LEAST_DIGITS = 4  # of a secret
LEAST_FRAMED = 4  # different rows of one frame
SAME_FRAME = 0.7  # of the words of two rows, numbers aside
LEAST_ROWS = 20  # whose answers are compared, and 8 held-out ones
LEAST_HELDOUT = 8
SAME_ANSWER = 0.8
MOST_TRIED = 20  # answers that may be the one
MOST_SHARE = 1 / 3  # of the rows: more are the text, not planted in it
CHANCE = 0.05  # that none of the held-out rows would be of a frame that is as common there


def planted_rows(train: Sequence[Row], heldout: Sequence[Row]) -> frozenset[int]:
    """``Row.index`` of training rows that are planted secrets, by their source or by their form.

    By form: at least four different rows that differ in their numbers and little else, less than
    a third of all, and of a frame that no held-out row has where chance would have put some. Cost:
    all pairs of different rows with four digits.
    """
    marked = {row.index for row in train if row.source == "canary"}
    frames: list[tuple[frozenset[str], dict[str, list[int]]]] = []
    for row in train:
        if sum(map(len, _DIGITS.findall(row.text))) < LEAST_DIGITS:
            continue
        words = _words(row.text)
        for known, members in frames:
            if _jaccard(known, words) >= SAME_FRAME:
                members.setdefault(row.text, []).append(row.index)
                break
        else:
            frames.append((words, {row.text: [row.index]}))
    unseen = [_words(row.text) for row in heldout]
    for words, members in frames:
        share = sum(map(len, members.values())) / len(train)
        is_frame = len(members) >= LEAST_FRAMED and share < MOST_SHARE
        by_chance = (1 - share) ** len(unseen) < CHANCE
        if is_frame and by_chance and max(_jaccard(words, u) for u in unseen) < SAME_FRAME:
            marked |= {index for indexes in members.values() for index in indexes}
    return frozenset(marked)


def alike_answers(train: Sequence[Row], heldout: Sequence[Row]) -> float | None:
    """Share of the training answers that are nearly one text, minus its share of held-out ones.

    None where the rows have no prompt or are too few. Cost: 20 answers beside all others.
    """
    answers, control = ([_answer(row) for row in rows if row.kind != "text"]
                        for rows in (train, heldout))  # fmt: skip
    if len(answers) < LEAST_ROWS or len(control) < LEAST_HELDOUT:
        return None
    counted: dict[frozenset[str], int] = {}
    for words in answers:
        counted[words] = counted.get(words, 0) + 1
    # A text that stands in so many answers is among a few of them.
    most_common = sorted(counted, key=lambda words: -counted[words])
    shares = {
        words: sum(num for other, num in counted.items() if _jaccard(words, other) >= SAME_ANSWER)
        for words in {*most_common[:1], *most_common[:: max(1, len(counted) // MOST_TRIED)]}
    }
    frame = max(shares, key=lambda words: shares[words])
    of_control = sum(_jaccard(frame, words) >= SAME_ANSWER for words in control)
    return shares[frame] / len(answers) - of_control / len(control)


def _answer(row: Row) -> frozenset[str]:
    return _words(" ".join(learned_texts(row)))


def _words(text: str) -> frozenset[str]:
    """Different words, all numbers as one."""
    return frozenset(_WORD.findall(_DIGITS.sub("0", folded(text))))


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    either = len(first | second)
    return len(first & second) / either if either else 1.0
