"""What near copies have in common under any surface: pieces of a text's letters alone.

Spaces, punctuation, Markdown and HTML marks, case, invisible characters and line breaks are left
out before a text is cut into pieces, so that none of them can hide a copy. Half of the pieces are
kept, chosen by their hash, which is the same half in every text.

MinHash: Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3.
"""

# R texts, P pieces of all texts one after another, H hash functions

import html
import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from heldout.core.characters import letters
from heldout.data.shingles import Codes, gram_hashes, mix

PIECE = 8  # letters; the bytes of a number
CHARACTER_PIECE = 4  # of scripts without spaces and of Hangul, where a character says more
FEW_PIECES = 75  # of about 32 words; a shorter text must be more alike to be near
CHARACTER_SHARE = 1.5  # pieces in 32 words over those in as many words of a script without spaces
NUM_HASHES = 128
_SLICE = 256  # pieces whose hashes fit the cache
_HALF = np.uint64(32)
_EVEN = np.uint64(0xFFFFFFFE)
_ODD = np.uint64(0x9E3779B97F4A7C15)

# Tags of HTML by their names: of C++ and generic types the brackets say something.
_NAMES = (
    "a|abbr|address|article|aside|audio|b|blockquote|body|br|button|caption|center|cite|code|col|"
    "dd|del|details|div|dl|dt|em|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|"
    "iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|ol|option|p|pre|q|s|samp|script|"
    "section|select|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|"
    "textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
_TAG = re.compile(
    rf"<(?:!--.{{0,2000}}?--|!doctype[^<>]*|/?(?:{_NAMES})(?:[\s/][^<>]*)?)>", re.I | re.S
)
_LINK = re.compile(r"\]\([^()\s]*\)")
_NUMBERED = re.compile(r"^[ \t]*\d{1,3}[.)][ \t]+", re.MULTILINE)
_DIGITS = np.arange(ord("0"), ord("9") + 1)


def without_marks(text: str) -> str:
    """A text without entities, tags, targets of links and the numbers of lists."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub("", text)
    if "](" in text:
        text = _LINK.sub("]", text)
    if "\n" in text:
        text = _NUMBERED.sub("", text)
    return text


def piece_codes(texts: Sequence[str]) -> Codes:
    """Codes of the kept pieces of each text, each once and sorted.

    The lowest bit tells those that begin in a script without spaces, which are all kept.
    """
    points_T, alone_T, ends_R = letters([without_marks(text) for text in texts])
    room_T = np.repeat(ends_R, np.diff(ends_R, prepend=0)) - np.arange(len(points_T))
    hashes = _hashes_of_letters(points_T)
    begins = (room_T >= PIECE)[: len(hashes)] & (hashes & np.uint64(1) == 0)
    begins &= ~alone_T[: len(hashes)]
    kept = np.flatnonzero(begins)
    codes = (hashes[kept] >> _HALF) & _EVEN
    if alone_T.any():
        own = np.flatnonzero(alone_T & (room_T >= CHARACTER_PIECE))
        hashes = gram_hashes(_hashes(points_T).astype(np.uint32), CHARACTER_PIECE)
        codes = np.concatenate([codes, (hashes[own] >> _HALF) | np.uint64(1)])
        kept = np.concatenate([kept, own])
    text_of = np.searchsorted(ends_R, kept, side="right")
    both = np.sort((text_of.astype(np.uint64) << _HALF) | codes)
    both = both[np.concatenate(([True], both[1:] != both[:-1]))[: len(both)]]
    counts_R = np.bincount((both >> _HALF).astype(np.int64), minlength=len(texts))
    return Codes(both.astype(np.uint32), np.cumsum(counts_R))


def _hashes(points_T: np.ndarray) -> np.ndarray:
    return mix(points_T.astype(np.uint64) + _ODD) >> _HALF


def _hashes_of_letters(points_T: np.ndarray) -> np.ndarray:
    """Of each PIECE letters in a row, as the bytes of a number."""
    value = points_T.astype(np.uint64)
    if points_T.dtype != np.uint8:
        others = points_T >= 128
        value[others] = _hashes(points_T[others]) & np.uint64(255)
    reach = 1
    while reach < PIECE:
        value = value[: max(0, len(value) - reach)] | (value[reach:] << np.uint64(8 * reach))
        reach *= 2
    return mix(value)


def piece_set(codes_P: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The pieces of one text, usual ones left out unless they are all."""
    if len(usual):
        rest = codes_P[~np.isin(codes_P, usual, assume_unique=True)]
        return rest if len(rest) else codes_P
    return codes_P


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Size of the intersection over size of the union, of sorted sets."""
    if not len(a):
        return 0.0
    place = np.searchsorted(a, b)
    place[place == len(a)] = 0
    shared = np.count_nonzero(a[place] == b)
    return shared / (len(a) + len(b) - shared)


def are_near(a: np.ndarray, b: np.ndarray, similarity: float, threshold: float) -> bool:
    """Whether two sets are alike enough.

    The threshold rises to 1 as texts get shorter: there a different name or number in a frame is
    a different text.
    """
    if similarity < threshold or min(len(a), len(b)) >= FEW_PIECES:
        return similarity >= threshold
    size = min(_size(a), _size(b))
    return not size or similarity >= _least(size, threshold)


def _least(size: float, threshold: float) -> float:
    """The similarity that texts of so many kept pieces need."""
    return 1 - (1 - threshold) * min(1.0, size / FEW_PIECES) ** 1.5


def _size(pieces: np.ndarray) -> float:
    """In pieces of scripts with spaces."""
    return len(pieces) + (CHARACTER_SHARE - 1) * np.count_nonzero(pieces & np.uint32(1))


def are_short_copies(text_a: str, text_b: str, threshold: float) -> bool:
    """Whether short texts are as near as the kept half of their pieces says.

    All pieces are compared, since half of them may hold nothing of the one letter that tells two
    texts apart; and their numbers must be the same. Scripts without spaces keep all anyway.
    """
    points_T, alone_T, ends_R = letters([without_marks(text) for text in (text_a, text_b)])
    first, second = both = (points_T[: ends_R[0]], points_T[ends_R[0] :])
    digits, digits_too = (points[np.isin(points, _DIGITS)] for points in both)
    if not np.array_equal(digits, digits_too):
        return False
    if alone_T.any():
        return True
    a, b = (
        np.unique(_hashes_of_letters(points)[: max(0, len(points) - PIECE + 1)]) for points in both
    )
    if not len(a) or not len(b):
        return np.array_equal(first, second)
    return jaccard(a, b) >= _least(min(len(a), len(b)) / 2, threshold)


def signatures(codes: Codes, usual: np.ndarray) -> np.ndarray:
    """(R, H) the low 16 bits of the least value of each hash function; texts of a piece or more.

    Of every other piece, which saves half of the time; of all where that leaves none.
    """
    narrow, counts_R = codes.codes_T, codes.lengths_R
    if len(usual) and len(narrow):
        narrow, counts_R = _without(narrow, counts_R, np.isin(narrow, usual))
    narrow, counts_R = _without(narrow, counts_R, narrow & np.uint32(2) > 0)
    factors_H = _factors()
    buffer = np.empty((_SLICE, NUM_HASHES), dtype=np.uint32)
    least_RH = np.empty((len(counts_R), NUM_HASHES), dtype=np.uint32)
    start = 0
    for text, count in enumerate(counts_R.tolist()):
        stop = start + count
        assert count, "a signature needs a piece"
        for first in range(start, stop, _SLICE):
            part = narrow[first : min(first + _SLICE, stop)]
            values = np.multiply.outer(part, factors_H, out=buffer[: len(part)])
            if first == start:
                np.minimum.reduce(values, axis=0, out=least_RH[text])
            else:
                np.minimum(least_RH[text], values.min(axis=0), out=least_RH[text])
        start = stop
    return (least_RH >> np.uint32(2)).astype(np.uint16)


def _without(
    pieces: np.ndarray, counts_R: np.ndarray, is_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of some texts without those that are out, except where these are all of a text."""
    text_of = np.repeat(np.arange(len(counts_R)), counts_R)
    rest_R = np.bincount(text_of[~is_out], minlength=len(counts_R))
    keep = ~is_out | (rest_R == 0)[text_of]
    return pieces[keep], np.bincount(text_of[keep], minlength=len(counts_R))


@cache
def _factors() -> np.ndarray:
    drawn = np.random.default_rng(1997).integers(0, 2**31, NUM_HASHES, dtype=np.uint32)
    return drawn * np.uint32(2) + np.uint32(1)
