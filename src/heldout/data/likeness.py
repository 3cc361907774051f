"""How alike sets of pieces are: of many pairs of texts at once, exact.

Similarity is that of Jaccard: the size of the intersection over that of the union.
"""

# R texts, P pieces of all texts one after another, N pairs of texts

import numpy as np

from heldout.data.pieces import CHARACTER_SHARE, FEW_PIECES
from heldout.data.shingles import Codes, token_places

PIECES_AT_ONCE = 200_000  # whose table fits the cache
_NOTHING = np.uint64(2**64 - 1)  # the slot of no text
_ODD = np.uint64(0x9E3779B97F4A7C15)


def without(codes: Codes, is_out_P: np.ndarray) -> Codes:
    """Texts without some of their pieces, except where these are all of a text."""
    keep = ~is_out_P
    kept_R = _sums(keep, codes.ends_R)
    if not kept_R.all():
        counts_R = codes.lengths_R
        keep |= np.repeat(kept_R == 0, counts_R)
        kept_R = np.where(kept_R == 0, counts_R, kept_R)
    return Codes(codes.codes_T[keep], np.cumsum(kept_R))


def without_usual(codes: Codes, usual: np.ndarray) -> Codes:
    """Texts without usual pieces, which are sorted, unless they are all."""
    return without(codes, is_among(codes.codes_T, usual)) if len(usual) else codes


def is_among(pieces: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Which pieces are some of those that are given sorted."""
    if not len(some):
        return np.zeros(len(pieces), dtype=bool)
    return some[np.minimum(np.searchsorted(some, pieces), len(some) - 1)] == pieces


def num_not_among(codes: Codes, some: np.ndarray) -> np.ndarray:
    """(R,) how many pieces of each text are none of those that are given sorted."""
    return _sums(~is_among(codes.codes_T, some), codes.ends_R)


def _sums(values_P: np.ndarray, ends_R: np.ndarray) -> np.ndarray:
    """Of each text, of numbers or truths that are given for its pieces."""
    running = np.append(0, np.cumsum(values_P, dtype=np.int64))
    return np.diff(running[ends_R], prepend=0)


def in_many(codes: Codes, more_than: float) -> np.ndarray:
    """Sorted pieces that stand in more than so many of the texts."""
    ordered = np.sort(codes.codes_T)
    new = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)])
    return ordered[new[np.diff(np.append(new, len(ordered))) > more_than]]


def similarities(
    codes: Codes, left_N: np.ndarray, right_N: np.ndarray, threshold: float
) -> np.ndarray:
    """(N,) of each pair of texts, 0 where it is not near. Cost: 15 ns a piece."""
    sizes_R = codes.lengths_R
    found_N = np.zeros(len(left_N))
    sizes = sizes_R[left_N], sizes_R[right_N]
    # More than the smaller one they cannot have in common.
    most_N = np.minimum(*sizes) / np.maximum(1, np.maximum(*sizes))
    able = np.flatnonzero((most_N >= threshold) & (most_N > 0))
    able = able[np.argsort(left_N[able], kind="stable")]
    ends = np.cumsum(sizes_R[right_N[able]])
    for start, stop in _runs(ends, PIECES_AT_ONCE):
        some = able[start:stop]
        shared = _num_shared(codes, left_N[some], right_N[some])
        found_N[some] = shared / (sizes_R[left_N[some]] + sizes_R[right_N[some]] - shared)
    found_N[found_N < threshold] = 0.0
    few = np.flatnonzero((found_N > 0) & (np.minimum(*sizes) < FEW_PIECES))
    size_R = _sizes(codes)
    size_N = np.minimum(size_R[left_N[few]], size_R[right_N[few]])
    each, number_N = np.unique(size_N, return_inverse=True)
    least = np.array([least_similarity(size, threshold) for size in each.tolist()])
    found_N[few[found_N[few] < least[number_N]]] = 0.0
    return found_N


def _runs(ends: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Runs of items whose sizes, of which ``ends`` is the sum, add up to about ``most``."""
    if not len(ends):
        return []
    starts = np.flatnonzero(np.diff(ends // most, prepend=-1))
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(ends)], strict=True))


def _num_shared(codes: Codes, left_N: np.ndarray, right_N: np.ndarray) -> np.ndarray:
    """Sizes of intersections, by one table of the pieces of all texts on the left.

    What another piece took the place of is looked for apart.
    """
    lefts, slot_N = np.unique(left_N, return_inverse=True)
    own = codes.chosen(lefts)
    keys = _with_slots(np.arange(len(lefts)), own.lengths_R, own.codes_T)
    num_bits = len(keys).bit_length() + 1
    table = np.full(1 << num_bits, _NOTHING)
    places = _places(keys, num_bits)
    table[places] = keys
    lost = table[places] != keys

    sizes_N = codes.lengths_R[right_N]
    pieces = codes.codes_T[token_places(codes.starts_of(right_N), sizes_N)]
    wanted = _with_slots(slot_N, sizes_N, pieces)
    looked_at = _places(wanted, num_bits)
    hit = table[looked_at] == wanted
    if lost.any():
        crowded = np.zeros(len(table), dtype=bool)
        crowded[places[lost]] = True
        missed = np.flatnonzero(crowded[looked_at] & ~hit)
        hit[missed] = is_among(wanted[missed], keys[lost])
    return _sums(hit, np.cumsum(sizes_N))


def _with_slots(slot_R: np.ndarray, sizes_R: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    return (np.repeat(slot_R.astype(np.uint64), sizes_R) << np.uint64(32)) | pieces


def _places(keys: np.ndarray, num_bits: int) -> np.ndarray:
    return ((keys * _ODD) >> np.uint64(64 - num_bits)).astype(np.int64)


def least_similarity(size: float, threshold: float) -> float:
    """The similarity that texts of so many kept pieces need.

    The threshold rises to 1 as texts get shorter: there a different name or number in a frame is
    a different text.
    """
    return 1 - (1 - threshold) * min(1.0, size / FEW_PIECES) ** 1.5


def _sizes(codes: Codes) -> np.ndarray:
    """(R,) in pieces of scripts with spaces."""
    num_alone_R = _sums(codes.codes_T & np.uint32(1), codes.ends_R)
    return codes.lengths_R + (CHARACTER_SHARE - 1) * num_alone_R
