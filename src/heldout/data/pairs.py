"""Which texts share a long span, from winnowed hashes; and sets of texts that are joined.

Works on token codes that lie in memory or in a file. What is returned was verified on the codes.
Texts are given by position; ``engine.map`` runs the parts that do not depend on one another.
"""

# R texts, T tokens of all texts, N pairs or entries

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from heldout.data.shingles import (
    GRAM,
    SPAN,
    WINDOW,
    Codes,
    gram_hashes,
)

BOILERPLATE_SPAN_ROWS = 10  # different texts with the same span: a frame, a license, a quotation
MOST_SPAN = 4000  # tokens on each side that a shared span is followed
PAIRS_AT_ONCE = 50_000
_JOINED_AT_ONCE = 1000

Entries = np.dtype(
    [("hash", "u8"), ("text", "u4"), ("position", "u4"), ("label", "u4"), ("part", "u4")]
)


class Engine(Protocol):
    """Where the independent parts of the work run."""

    def map(self, function: Callable[..., Any], items: Iterable[tuple]) -> Iterator[Any]:
        """``function(*item)`` of each item, in their order; few items are taken ahead."""
        ...

    def share(self, value: Any) -> Any:
        """A large value that many items hold, to be sent once."""
        ...


class Here:
    """One after the other, in this process."""

    def map(self, function: Callable[..., Any], items: Iterable[tuple]) -> Iterator[Any]:
        return (function(*item) for item in items)

    def share(self, value: Any) -> Any:
        return value


class Components:
    """Sets of positions that are joined step by step."""

    def __init__(self, size: int):
        self.label = np.arange(size)  # position -> label of its set
        self.members: dict[int, list[int]] = {}  # of sets with more than one member

    def join(self, a: int, b: int) -> None:
        """Cost: moving the members of the smaller set."""
        first, second = int(self.label[a]), int(self.label[b])
        if first == second:
            return
        is_larger = self.size_of(first) > self.size_of(second)
        small, large = (second, first) if is_larger else (first, second)
        moved = self.members.pop(small, [small])
        self.members.setdefault(large, [large]).extend(moved)
        self.label[moved] = large

    def join_all(self, firsts: np.ndarray, seconds: np.ndarray) -> None:
        """``join`` of each pair, in their order; those that are together already cost nothing."""
        for at in range(0, len(firsts), _JOINED_AT_ONCE):
            a, b = firsts[at : at + _JOINED_AT_ONCE], seconds[at : at + _JOINED_AT_ONCE]
            apart = self.label[a] != self.label[b]
            for pair in zip(a[apart].tolist(), b[apart].tolist(), strict=True):
                self.join(*pair)

    def size_of(self, label: int) -> int:
        return len(self.members.get(label, (label,)))


def neighbors(keys: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of equal sorted keys at distance 1, 2, ...; a quarter of ``most`` in longer runs."""
    starts = np.flatnonzero(changes(keys)) if len(keys) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    size_of = np.repeat(sizes, sizes)
    at = np.arange(len(keys))
    for distance in range(1, most + 1):
        at = at[at + distance < len(keys)]
        at = at[keys[at] == keys[at + distance]]
        if distance > most // 4:
            at = at[size_of[at] <= most]
        if not len(at):
            return
        yield at, at + distance


@dataclass(frozen=True)
class Span:
    """``length`` tokens in a row that two texts share, as long as they go on."""

    text_a: int
    text_b: int
    start_a: int
    start_b: int
    length: int


@dataclass(frozen=True)
class Boilerplate:
    """Tokens in a row that stand in many different texts, of which ``text`` is the first."""

    text: int
    start: int
    length: int
    num_texts: int


def shared_spans(
    codes: Codes,
    parts: Iterable[np.ndarray],
    engine: Engine,
    wanted: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> tuple[list[Span], list[Boilerplate]]:
    """Spans of SPAN tokens or more between texts of different labels, the longest of each pair.

    ``parts`` are arrays of Entries; equal hashes are in the same one. Texts of one label are
    known to be alike, count once, and are not compared. A hash in 10 texts or more is boilerplate.
    ``wanted`` tells of pairs of texts which to look at.
    """
    hits, usual = [], []
    for pairs, common in engine.map(_span_hits, ((part,) for part in parts)):
        if wanted is not None:
            pairs = pairs[wanted(pairs[:, 0], pairs[:, 2])]
        hits.append(_verified(codes, pairs, np.full(len(pairs), SPAN)))
        usual.append(common)
    found = np.unique(np.concatenate([np.zeros((0, 5), dtype=np.int64), *hits]), axis=0)
    common = np.concatenate([np.zeros(0, dtype=Entries), *usual])
    return _longest(_beyond_boilerplate(codes, found, common["hash"])), _joined(common)


def contained_spans(codes: Codes, hits: np.ndarray) -> list[tuple[Span, int]]:
    """Of hits (text, position, short text, its position), those that hold all of the short one.

    Each span with its short text. Of two equal texts under other white space neither is short.
    """
    lengths = codes.ends_R[hits[:, 2]] - codes.starts_of(hits[:, 2])
    spans = _longest(_verified(codes, hits, lengths))
    sizes = codes.lengths_R
    return [
        (span, min(span.text_a, span.text_b, key=lambda text: (sizes[text], text)))
        for span in spans
    ]


def _span_hits(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(text, position, text, position) of equal hashes, and Entries of boilerplate.

    In the label of the latter stands the number of different texts.
    """
    if not len(entries):
        return np.zeros((0, 4), dtype=np.int64), entries
    # Most hashes are there once.
    entries = entries[np.argsort(entries["hash"], kind="stable")]
    hashes = entries["hash"]
    same = hashes[1:] == hashes[:-1]
    entries = entries[np.concatenate((same, [False])) | np.concatenate(([False], same))]
    if not len(entries):
        return np.zeros((0, 4), dtype=np.int64), entries
    order = np.lexsort((entries["text"], entries["part"], entries["label"], entries["hash"]))
    entries = entries[order]
    new_hash = changes(entries["hash"])
    new_label = new_hash | changes(entries["label"])
    starts = np.flatnonzero(new_hash)
    num_labels = np.add.reduceat(new_label.astype(np.int64), starts)
    sizes = np.diff(np.append(starts, len(entries)))
    labels_of = np.repeat(num_labels, sizes)
    common = entries[starts[num_labels >= BOILERPLATE_SPAN_ROWS]].copy()
    common["label"] = num_labels[num_labels >= BOILERPLATE_SPAN_ROWS]
    # Of many texts that are alike, four of each part stand for all.
    new_part = np.flatnonzero(new_label | changes(entries["part"]))
    rank = np.arange(len(entries)) - np.repeat(new_part, np.diff(np.append(new_part, len(entries))))
    entries = entries[(labels_of > 1) & (labels_of < BOILERPLATE_SPAN_ROWS) & (rank < 4)]
    pairs = [np.zeros((0, 4), dtype=np.int64)]
    for at, after in neighbors(entries["hash"], 4 * len(entries)):
        differ = entries["label"][at] != entries["label"][after]
        left, right = entries[at[differ]], entries[after[differ]]
        columns = [left["text"], left["position"], right["text"], right["position"]]
        pairs.append(np.stack(columns, axis=1).astype(np.int64))
    return np.concatenate(pairs), common


def changes(values: np.ndarray) -> np.ndarray:
    return np.concatenate(([True], values[1:] != values[:-1]))


def _verified(codes: Codes, hits: np.ndarray, least: np.ndarray) -> np.ndarray:
    """(text, text, start, start, length) of hits that go on for ``least`` tokens or more."""
    found = [np.zeros((0, 5), dtype=np.int64)]
    for at in range(0, len(hits), PAIRS_AT_ONCE):
        text_a, place_a, text_b, place_b = hits[at : at + PAIRS_AT_ONCE].T
        begins = [codes.starts_of(text) for text in (text_a, text_b)]
        ends = [codes.ends_R[text] for text in (text_a, text_b)]
        here = [begins[0] + place_a, begins[1] + place_b]
        back = _run(codes.codes_T, here[0] - 1, here[1] - 1, -1, begins)
        ahead = _run(codes.codes_T, here[0], here[1], 1, ends)
        length = back + ahead
        keep = length >= least[at : at + PAIRS_AT_ONCE]
        columns = [text_a, text_b, place_a - back, place_b - back, length]
        found.append(np.stack(columns, axis=1)[keep])
    return np.concatenate(found)


def _run(
    codes_T: np.ndarray, a: np.ndarray, b: np.ndarray, step: int, bounds: Sequence[np.ndarray]
) -> np.ndarray:
    """How many tokens are equal from places a and b on, up to the ends of the texts."""
    length = np.zeros(len(a), dtype=np.int64)
    if step > 0:
        room = np.minimum(bounds[0] - a, bounds[1] - b)
    else:
        room = np.minimum(a - bounds[0], b - bounds[1]) + 1
    going = np.flatnonzero(room > 0)
    for distance in range(MOST_SPAN):
        if not len(going):
            break
        equal = codes_T[a[going] + step * distance] == codes_T[b[going] + step * distance]
        going = going[equal]
        length[going] += 1
        going = going[room[going] > distance + 1]
    return length


def _beyond_boilerplate(codes: Codes, hits: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Hits that have SPAN tokens in a row outside of boilerplate.

    At the ends of a frame which of its hashes are kept depends on what stands beside it, so some
    of them are in few texts.
    """
    if not len(hashes) or not len(hits):
        return hits
    hashes = np.sort(hashes)
    known: dict[tuple[int, int, int], bool] = {}
    keep = np.ones(len(hits), dtype=bool)
    for place, (text, _, start, _, length) in enumerate(hits.tolist()):
        key = (text, start, length)
        if key not in known:
            grams = gram_hashes(codes.of(text)[start : start + length], GRAM)
            at = np.minimum(np.searchsorted(hashes, grams), len(hashes) - 1)
            usual = np.flatnonzero(hashes[at] == grams)
            free = np.diff(np.concatenate(([-GRAM], usual, [length]))) - GRAM
            known[key] = bool((free >= SPAN).any())
        keep[place] = known[key]
    return hits[keep]


def _longest(hits: np.ndarray) -> list[Span]:
    """One span of each pair of texts, the smaller text first."""
    hits = hits.copy()
    turned = hits[:, 0] > hits[:, 1]
    hits[turned] = hits[turned][:, [1, 0, 3, 2, 4]]
    hits = hits[np.lexsort((hits[:, 2], -hits[:, 4], hits[:, 1], hits[:, 0]))]
    first = changes(hits[:, 0]) | changes(hits[:, 1]) if len(hits) else np.zeros(0, dtype=bool)
    return [Span(*row) for row in hits[first].tolist()]


def _joined(entries: np.ndarray) -> list[Boilerplate]:
    """Hashes that follow one another in a text become one span; the most common first."""
    entries = entries[np.lexsort((entries["position"], entries["text"]))]
    found: list[Boilerplate] = []
    for entry in entries:
        text, position, count = (int(entry[name]) for name in ("text", "position", "label"))
        last = found[-1] if found else None
        if last and last.text == text and position <= last.start + last.length - GRAM + WINDOW:
            length = position + GRAM - last.start
            count = max(count, last.num_texts)
            found[-1] = Boilerplate(text, last.start, length, count)
        else:
            found.append(Boilerplate(text, position, GRAM, count))
    return sorted(found, key=lambda each: (-each.num_texts, each.text, each.start))
