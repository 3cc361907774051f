"""Texts as token codes, and long spans of them: winnowed hashes, rows that stand whole in others.

A token is what stands between white space, its marks left out, or a letter in scripts that are
written without spaces (core/characters.py). Everything works on the codes of many texts one after
another, without a loop over tokens.

Winnowing: Schleimer, Wilkerson and Aiken 2003. Of each window of WINDOW hashes of GRAM tokens the
least is kept, so that two texts that share SPAN tokens in a row share a kept hash.
"""

# R texts, T tokens of all texts one after another, N kept hashes

import hashlib
import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import regex

from heldout.core.segments import ALONE, TOGETHER

LEAST_TOKENS = 5  # of a text that can be nearly the same as another
SPAN = 50  # tokens in a row that two texts share only if one was copied from the other
GRAM = 25
WINDOW = SPAN - GRAM + 1
CONTAINED = 13  # tokens of a text that is searched for as a whole, if it is shorter than SPAN
MOST_OWNERS = 50  # short texts with one hash, beyond which it is a frame
_GRAMS_AT_ONCE = 100_000  # that fit the cache


def text_key(text: str) -> bytes:
    """16 bytes that tell a text; of folded texts, equal ones have the same."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Codes:
    """Token codes of some texts, one after another."""

    codes_T: np.ndarray  # uint32; equal tokens have equal codes, others differ but for 1 in 2**32
    ends_R: np.ndarray  # where each text ends

    @property
    def lengths_R(self) -> np.ndarray:
        return np.diff(self.ends_R, prepend=0)

    def of(self, text: int) -> np.ndarray:
        """The codes of one text."""
        start = int(self.ends_R[text - 1]) if text else 0
        return self.codes_T[start : int(self.ends_R[text])]

    def starts_of(self, texts: np.ndarray) -> np.ndarray:
        """Where each of some texts begins."""
        return np.where(texts > 0, self.ends_R[np.maximum(texts, 1) - 1], 0)

    def chosen(self, texts: np.ndarray) -> "Codes":
        """A copy of some of the texts, in memory."""
        starts = self.starts_of(texts)
        lengths = self.ends_R[texts] - starts
        return Codes(self.codes_T[token_places(starts, lengths)], np.cumsum(lengths))


def joined(parts: Sequence[Codes]) -> Codes:
    """The texts of all parts, one after another."""
    codes = np.concatenate([np.zeros(0, dtype=np.uint32), *(part.codes_T for part in parts)])
    lengths = np.concatenate([np.zeros(0, dtype=np.int64), *(part.lengths_R for part in parts)])
    return Codes(codes, np.cumsum(lengths))


def token_codes(texts: Sequence[bytes]) -> Codes:
    """Codes of the tokens of texts, which are given with spaces between and no line ends.

    Of each the polynomial in its bytes, by differences of one running sum.
    """
    bytes_ = np.frombuffer(b"\n".join([*texts, b""]), dtype=np.uint8)
    powers, inverses = _powers(1 << max(16, len(bytes_).bit_length()))
    running = np.cumsum(_byte_values()[bytes_] * powers[: len(bytes_)])
    stops = np.flatnonzero((bytes_ == _SPACE) | (bytes_ == _LINE_END))
    starts = np.concatenate(([0], stops[:-1] + 1))[: len(stops)]
    is_word = stops > starts
    starts, stops = starts[is_word], stops[is_word]
    before = np.where(starts > 0, running[starts - 1], 0).astype(np.uint64)
    value = (running[stops - 1] - before) * inverses[starts]
    codes = (mix(value) >> _HALF).astype(np.uint32)
    return Codes(codes, np.searchsorted(starts, np.cumsum([len(text) + 1 for text in texts])))


@cache
def _byte_values() -> np.ndarray:
    return np.random.default_rng(1).integers(1, 2**63, 256, dtype=np.uint64) * np.uint64(2) + _ONE


@cache
def _powers(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of an odd number modulo 2**64, and their inverses."""
    inverse = np.uint64(pow(int(_ODD), -1, 2**64))
    both = []
    for base in (_ODD, inverse):
        factors = np.full(num, base, dtype=np.uint64)
        factors[0] = 1
        both.append(np.multiply.accumulate(factors))
    return both[0], both[1]


_SPACE, _LINE_END = b" \n"
_ONE = np.uint64(1)
_MOST = np.uint64(2**64 - 1)
_HALF = np.uint64(32)
_ODD = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every bit of the input changes half of the output."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


# Grams


def gram_hashes(codes_T: np.ndarray, size: int) -> np.ndarray:
    """A 64-bit hash of each ``size`` tokens in a row, over the ends of texts as well."""
    num = len(codes_T) - size + 1
    if num <= 0:
        return np.zeros(0, dtype=np.uint64)
    wide = codes_T.astype(np.uint64)
    if size <= 8:
        value = wide[:num].copy()
        for offset in range(1, size):
            value *= _ODD
            value += wide[offset : num + offset]
        return mix(value)
    powers, inverses = _powers(1 << max(16, len(wide).bit_length()))
    wide *= powers[: len(wide)]
    running = np.cumsum(wide)
    value = running[size - 1 :].copy()
    value[1:] -= running[: num - 1]
    value *= inverses[:num]
    return mix(value)


def _gram_counts(lengths_R: np.ndarray, size: int) -> np.ndarray:
    return np.maximum(lengths_R - size + 1, 0)


def token_places(starts_R: np.ndarray, counts_R: np.ndarray) -> np.ndarray:
    """start, start + 1, ... of each text, as many as its count, one after another."""
    total = int(counts_R.sum())
    before = np.cumsum(counts_R) - counts_R
    return np.arange(total) + np.repeat(starts_R - before, counts_R)


# Spans


@dataclass(frozen=True)
class Fingerprints:
    """Kept hashes, each once per text: where the GRAM tokens begin that it stands for."""

    hashes_N: np.ndarray  # uint64
    texts_N: np.ndarray  # position of the text among those given
    positions_N: np.ndarray  # token in the text


def fingerprints(codes: Codes) -> Fingerprints:
    """Winnowed hashes of texts of SPAN tokens or more."""
    long = codes.lengths_R >= SPAN
    counts_R = np.where(long, _gram_counts(codes.lengths_R, GRAM), 0)
    if not counts_R.any():
        empty = np.zeros(0, dtype=np.int64)
        return Fingerprints(np.zeros(0, dtype=np.uint64), empty, empty)
    hashes = gram_hashes(codes.codes_T, GRAM)
    starts_R = codes.ends_R - codes.lengths_R
    places = token_places(starts_R, counts_R)
    hashes = hashes[places]
    text_of = np.repeat(np.arange(len(counts_R)), counts_R)
    # Windows that lie in one text; the least hash of each, then whether a hash is the least of any.
    num_windows = len(hashes) - WINDOW + 1
    least = _sliding(hashes, WINDOW, np.minimum)
    least[text_of[:num_windows] != text_of[WINDOW - 1 :]] = 0
    padded = np.zeros(len(hashes) + WINDOW - 1, dtype=np.uint64)
    padded[WINDOW - 1 : WINDOW - 1 + num_windows] = least
    kept = np.flatnonzero(_sliding(padded, WINDOW, np.maximum) == hashes)
    hashes, text_of = hashes[kept], text_of[kept]
    positions = places[kept] - starts_R[text_of]
    order = np.lexsort((hashes, text_of))  # stable: the first place of a repeated hash is kept
    same = hashes[order][1:] == hashes[order][:-1]
    same &= text_of[order][1:] == text_of[order][:-1]
    order = np.sort(order[np.concatenate(([True], ~same))])
    return Fingerprints(hashes[order], text_of[order], positions[order])


def _sliding(values: np.ndarray, width: int, least_or_most: np.ufunc) -> np.ndarray:
    """Least or most of each ``width`` values in a row, in log(width) passes."""
    reach, result = 1, values
    while reach * 2 <= width:
        result = least_or_most(result[:-reach], result[reach:])
        reach *= 2
    if reach < width:
        rest = width - reach
        result = least_or_most(result[: len(result) - rest], result[rest:])
    return result.copy() if result is values else result


def contained_keys(codes: Codes) -> Fingerprints:
    """One hash of CONTAINED tokens of each text of CONTAINED to SPAN tokens: the rarest of them.

    A frame that many of these texts share is no good to look for one of them. Texts whose every
    hash is in MOST_OWNERS others have none.
    """
    lengths_R = codes.lengths_R
    texts = np.flatnonzero((lengths_R >= CONTAINED) & (lengths_R < SPAN))
    if not len(texts):
        empty = np.zeros(0, dtype=np.int64)
        return Fingerprints(np.zeros(0, dtype=np.uint64), empty, empty)
    counts = lengths_R[texts] - CONTAINED + 1
    values = np.concatenate(
        [
            _grams_of_each(codes.chosen(texts[start:stop]), CONTAINED)
            for start, stop in slices(counts, _GRAMS_AT_ONCE)
        ]
    )
    num_texts = _num_equal(values)
    begins = np.cumsum(counts) - counts
    fewest = np.minimum.reduceat(num_texts, begins)
    values_of_few = np.where(num_texts == np.repeat(fewest, counts), values, _MOST)
    least = np.minimum.reduceat(values_of_few, begins)
    found = np.flatnonzero(values_of_few == np.repeat(least, counts))
    owner = np.repeat(np.arange(len(texts)), counts)[found]
    best = found[np.append(True, owner[1:] != owner[:-1])]  # the first place of each text
    fine = fewest <= MOST_OWNERS
    best, texts, begins = best[fine], texts[fine], begins[fine]
    return Fingerprints(values[best], texts, best - begins)


def _grams_of_each(codes: Codes, size: int) -> np.ndarray:
    """Hashes of grams that lie in one text."""
    counts_R = _gram_counts(codes.lengths_R, size)
    return gram_hashes(codes.codes_T, size)[token_places(codes.ends_R - codes.lengths_R, counts_R)]


def _num_equal(values: np.ndarray) -> np.ndarray:
    """How often each value is there; of hashes, most of which are there once."""
    num_equal = np.ones(len(values), dtype=np.int64)
    several = may_repeat(values)
    _, number, counts = np.unique(values[several], return_inverse=True, return_counts=True)
    num_equal[several] = counts[number]
    return num_equal


def may_repeat(hashes: np.ndarray) -> np.ndarray:
    """Places of hashes, among which all are that are there more than once, and few others."""
    num_bits = len(hashes).bit_length() + 2
    bucket = (hashes >> np.uint64(64 - num_bits)).astype(np.int64)
    return np.flatnonzero(np.bincount(bucket, minlength=1 << num_bits)[bucket] > 1)


def occurrences(codes: Codes, keys: np.ndarray) -> Fingerprints:
    """Where hashes of CONTAINED tokens are among ``keys``, which are sorted and not none."""
    counts_R = _gram_counts(codes.lengths_R, CONTAINED)
    hashes = gram_hashes(codes.codes_T, CONTAINED)
    num_bits = len(keys).bit_length() + 4
    shift = np.uint64(64 - num_bits)
    may_be = np.zeros(1 << num_bits, dtype=bool)
    may_be[(keys >> shift).astype(np.int64)] = True
    hit = np.flatnonzero(may_be[(hashes >> shift).astype(np.int64)])
    place = np.searchsorted(keys, hashes[hit])
    hit = hit[keys[np.minimum(place, len(keys) - 1)] == hashes[hit]]
    text_of = np.searchsorted(codes.ends_R, hit, side="right")
    positions = hit - (codes.ends_R - codes.lengths_R)[text_of]
    inside = positions < counts_R[text_of]
    return Fingerprints(hashes[hit][inside], text_of[inside], positions[inside])


# Places in a text


def place_of(text: str, start: int, stop: int) -> tuple[int, int]:
    """Characters of ``text`` that hold its tokens from ``start`` to ``stop``, with their marks.

    Exact where folding leaves the number of tokens as it is, else near.
    """
    tokens: Iterator[re.Match[str] | regex.Match[str]]
    if text.isascii():
        tokens = _PLAIN_TOKEN.finditer(text)
    else:
        tokens = (found for found in _token().finditer(text) if found.lastindex)
    chosen = itertools.islice(tokens, start, stop)
    first = next(chosen, None)
    if first is None:
        return 0, len(text)
    last = deque(chosen, maxlen=1) or [first]
    return first.start(), last[0].end()


# From the start of an item on, so that long ones without a letter or digit are passed by at once.
_PLAIN_TOKEN = re.compile(r"(?<![^\t-\r ])[^\t-\r A-Za-z0-9]*+[A-Za-z0-9][^\t-\r ]*+")


@cache
def _token() -> regex.Pattern[str]:
    """Items with a letter or digit are a group, others are passed by."""
    in_run = rf"[^\s{ALONE}\p{{L}}\p{{N}}]*+{TOGETHER}[^\s{ALONE}]*+"
    return regex.compile(rf"(?V1)({ALONE}\p{{M}}*+|{in_run})|[^\s{ALONE}]++")


def slices(sizes: Sequence[int] | np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Runs of items whose sizes add up to ``most`` or less, or of one item that is larger."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start, before = 0, 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield start, stop
        start, before = stop, int(ends[stop - 1])
