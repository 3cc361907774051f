"""What near copies have in common under any surface: pieces of a text's letters alone.

Spaces, punctuation, Markdown and HTML marks, case, invisible characters and line breaks are left
out before a text is cut into pieces, so that none of them can hide a copy. Half of the pieces are
kept, chosen by their hash, which is the same half in every text.

MinHash: Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3.
"""

# R texts, P pieces of all texts one after another, H hash functions

import html
import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

from heldout.data.shingles import WITHOUT_SPACES, Codes, gram_hashes, mix

PIECE = 8  # letters; the bytes of a number
CHARACTER_PIECE = 5  # of scripts without spaces, where a character says more
FEW_PIECES = 75  # of about 32 words; a shorter text must be more alike to be near
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
_NO_LETTER = re.compile(r"[\W_]+")
_LETTERS = (string.ascii_letters + string.digits).encode()
_DELETED = bytes(set(range(256)) - set(_LETTERS))


def letters_of(text: str) -> str:
    """Letters and digits of a text in lower case, without entities, tags and targets of links."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub("", text)
    if "](" in text:
        text = _LINK.sub("]", text)
    if "\n" in text:
        text = _NUMBERED.sub("", text)
    if text.isascii():
        return text.lower().encode().translate(None, _DELETED).decode()
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return _NO_LETTER.sub("", text.casefold())


def piece_codes(texts: Sequence[str]) -> Codes:
    """Codes of the kept pieces of each text, each once and sorted.

    The lowest bit tells scripts without spaces, whose pieces are all kept.
    """
    letters = [letters_of(text) for text in texts]
    by_characters = [_is_by_characters(each) for each in letters]
    words = ["" if chars else each for each, chars in zip(letters, by_characters, strict=True)]
    hashes, text_of = _pieces_of_words(words)
    both = np.sort((text_of.astype(np.uint64) << _HALF) | (hashes >> _HALF) & _EVEN)
    both = both[np.concatenate(([True], both[1:] != both[:-1]))[: len(both)]]
    counts_R = np.bincount((both >> _HALF).astype(np.int64), minlength=len(texts))
    kept = both.astype(np.uint32)
    if not any(by_characters):
        return Codes(kept, np.cumsum(counts_R))
    found, ends = [], np.cumsum(counts_R)
    for place, chars in enumerate(by_characters):
        if chars:
            points = _points(letters[place]).astype(np.uint64)
            own = (mix(points + _ODD) >> _HALF).astype(np.uint32)
            own = (gram_hashes(own, CHARACTER_PIECE) >> _HALF).astype(np.uint32) | np.uint32(1)
            own = np.unique(own)
            counts_R[place] = len(own)
            found.append(own)
        else:
            found.append(kept[ends[place] - counts_R[place] : ends[place]])
    return Codes(np.concatenate(found), np.cumsum(counts_R))


def _is_by_characters(letters: str) -> bool:
    if letters.isascii():
        return False
    return len(WITHOUT_SPACES.findall(letters)) > 0.3 * len(letters)


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _pieces_of_words(letters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the kept pieces, and the text of each: letters as the bytes of a number."""
    joined = "".join(letters)
    sizes_R = np.array([len(each) for each in letters], dtype=np.int64)
    if len(joined) < PIECE:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    if joined.isascii():
        value = np.frombuffer(joined.encode(), dtype=np.uint8).astype(np.uint64)
    else:
        points = _points(joined).astype(np.uint64)
        value = np.where(points < 128, points, mix(points + _ODD) & np.uint64(255))
    reach = 1
    while reach < PIECE:
        value = value[:-reach] | (value[reach:] << np.uint64(8 * reach))
        reach *= 2
    inside = np.ones(len(joined), dtype=bool)
    for end, size in zip(np.cumsum(sizes_R).tolist(), sizes_R.tolist(), strict=True):
        inside[end - min(size, PIECE - 1) : end] = False
    hashes = mix(value)
    kept = np.flatnonzero(inside[: len(hashes)] & (hashes & np.uint64(1) == 0))
    text_of = np.searchsorted(np.cumsum(sizes_R), kept, side="right")
    return hashes[kept], text_of


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
    a different text. In scripts without spaces it stays.
    """
    num = min(len(a), len(b))
    if num >= FEW_PIECES or not num or a[0] & 1:
        return similarity >= threshold
    return similarity >= 1 - (1 - threshold) * (num / FEW_PIECES) ** 1.5


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
