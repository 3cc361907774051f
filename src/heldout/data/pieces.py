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
from heldout.data.shingles import Codes, gram_hashes, joined, mix

PIECE = 8  # letters; the bytes of a number
CHARACTER_PIECE = 4  # of scripts without spaces and of Hangul, where a character says more
FEW_PIECES = 75  # of about 32 words; a shorter text must be more alike to be near
CHARACTER_SHARE = 1.5  # pieces in 32 words over those in as many words of a script without spaces
NUM_HASHES = 128
_SLICE = 4096  # pieces whose hashes fit the cache
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
    plain = [without_marks(text) for text in texts]
    is_ascii_R = np.array([text.isascii() for text in plain], dtype=bool)
    if is_ascii_R.all() or not is_ascii_R.any():
        return _piece_codes(plain)
    # Apart, since letters of ASCII alone take a quarter of the memory.
    order = np.argsort(~is_ascii_R, kind="stable")
    num = int(is_ascii_R.sum())
    halves = ([plain[place] for place in half.tolist()] for half in (order[:num], order[num:]))
    return joined([_piece_codes(half) for half in halves]).chosen(np.argsort(order))


def _piece_codes(texts: Sequence[str]) -> Codes:
    points_T, alone_T, ends_R = letters(texts)
    hashes = letter_pieces(points_T)
    begins = hashes & np.uint64(1) == 0
    begins[_before(ends_R, PIECE, len(hashes))] = False
    has_alone = alone_T.any()
    if has_alone:
        begins &= ~alone_T[: len(hashes)]
    kept = np.flatnonzero(begins)
    both = _with_texts(kept, (hashes[kept] >> _HALF) & _EVEN, ends_R)
    if has_alone:
        alone_T[_before(ends_R, CHARACTER_PIECE, len(alone_T))] = False
        own = np.flatnonzero(alone_T)
        hashes = gram_hashes(_hashes(points_T).astype(np.uint32), CHARACTER_PIECE)
        others = _with_texts(own, (hashes[own] >> _HALF) | np.uint64(1), ends_R)
        both = np.concatenate([both, others])
    both.sort()
    both = both[np.concatenate(([True], both[1:] != both[:-1]))[: len(both)]]
    text_R = np.arange(1, len(texts) + 1, dtype=np.uint64) << _HALF
    return Codes(both.astype(np.uint32), np.searchsorted(both, text_R))


def _before(ends_R: np.ndarray, size: int, most: int) -> np.ndarray:
    """Places before the ends of texts, from which ``size`` letters go on beyond them."""
    places = (ends_R[:, None] - np.arange(1, size)).reshape(-1)
    return places[(places >= 0) & (places < most)]


def _with_texts(places: np.ndarray, codes: np.ndarray, ends_R: np.ndarray) -> np.ndarray:
    """Codes behind the number of the text that they stand in."""
    counts_R = np.diff(np.searchsorted(places, ends_R), prepend=0)
    return np.repeat(np.arange(len(ends_R), dtype=np.uint64) << _HALF, counts_R) | codes


def _hashes(points_T: np.ndarray) -> np.ndarray:
    return mix(points_T.astype(np.uint64) + _ODD) >> _HALF


def letter_pieces(points_T: np.ndarray) -> np.ndarray:
    """A hash of each PIECE letters in a row, as the bytes of a number; over the ends of texts."""
    num = max(0, len(points_T) - PIECE + 1)
    bytes_T = points_T
    if points_T.dtype != np.uint8:
        others = points_T >= 128
        bytes_T = points_T.astype(np.uint8)
        bytes_T[others] = _hashes(points_T[others]) & np.uint64(255)
    data = np.ascontiguousarray(bytes_T).tobytes()
    return mix(np.ndarray(num, dtype="<u8", buffer=data, strides=(1,)).astype(np.uint64))


def signatures(codes: Codes) -> np.ndarray:
    """(R, H) the low 16 bits of the least value of each hash function; texts of a piece or more.

    Cost: 12 ns a piece.
    """
    counts_R = codes.lengths_R
    assert (counts_R > 0).all(), "a signature needs a piece"
    factors_H = _factors()
    starts_R = codes.ends_R - counts_R
    text_of = np.repeat(np.arange(len(counts_R)), counts_R)
    least_HR = np.full((NUM_HASHES, len(counts_R)), 0xFFFFFFFF, dtype=np.uint32)
    buffer = np.empty((NUM_HASHES, _SLICE), dtype=np.uint32)
    for at in range(0, len(text_of), _SLICE):
        part = codes.codes_T[at : at + _SLICE]
        values = np.multiply.outer(factors_H, part, out=buffer[:, : len(part)])
        some = slice(text_of[at], text_of[at + len(part) - 1] + 1)
        least = np.minimum.reduceat(values, np.maximum(starts_R[some] - at, 0), axis=1)
        np.minimum(least_HR[:, some], least, out=least_HR[:, some])
    return (least_HR.T >> np.uint32(2)).astype(np.uint16)


@cache
def _factors() -> np.ndarray:
    drawn = np.random.default_rng(1997).integers(0, 2**31, NUM_HASHES, dtype=np.uint32)
    return drawn * np.uint32(2) + np.uint32(1)
