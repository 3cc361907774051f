"""Near duplicates: texts with half of their pieces in common, from MinHash bands, verified.

What many texts hold says nothing of two of them. Pieces in more than half of all texts do not
count. Nor do pieces of a frame: of 25 tokens in a row that ten texts or more hold, what half of
these texts hold; and inside a cluster of ten texts or more, what ten of them hold. They do count in
texts that hold hardly anything else: these are copies.
"""

# R texts, B bands of K hash functions

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heldout.data.likeness import in_many, num_not_among, similarities, without, without_usual
from heldout.data.pairs import (
    BOILERPLATE_SPAN_ROWS,
    Components,
    Engine,
    Here,
    neighbors,
)
from heldout.data.pieces import NUM_HASHES, signatures
from heldout.data.shingles import Codes, may_repeat, mix, token_places

MISS_RATE = 0.02  # of pairs whose similarity is the threshold; fewer above it
MOST_NEIGHBORS = 64  # rows of one band that a row is compared with; 16 where there are more
BOILERPLATE_SHARE = 0.5
BOILERPLATE_ROWS = 20
BOILERPLATE_SAMPLE = 2000  # texts that tell what more than half of all texts hold
COPY = 1 / 8  # of its pieces that a text of a cluster has for itself, under which it is a copy
_COMPARED_AT_ONCE = 8000  # pairs whose signatures fit the cache
_LOOKED_BACK = 4  # bands; in one of so many agree nearly all pairs that agree in an earlier one
_DEEPEST = 3  # frames within frames
_FEW = 20  # texts that are all compared with one another
_FRAME_SAMPLE = 20  # texts with a frame that tell its pieces

NearPair = tuple[int, int, float]


def boilerplate_pieces(sample: Codes) -> np.ndarray:
    """Sorted pieces that stand in more than half of at least 20 different texts."""
    num = len(sample.ends_R)
    if num < BOILERPLATE_ROWS:
        return np.zeros(0, dtype=np.uint32)
    return in_many(sample, BOILERPLATE_SHARE * num)


def hashes_per_band(threshold: float) -> int:
    """The most hashes per band with which MISS_RATE of the pairs at the threshold are missed."""
    fitting = [
        per_band
        for per_band in range(1, 5)
        if (1 - threshold**per_band) ** (NUM_HASHES // per_band) <= MISS_RATE
    ]
    return max(fitting, default=1)


def in_bands(codes: Codes, usual: np.ndarray, per_band: int) -> np.ndarray:
    """Signatures as (R, B, K), without usual pieces.

    Of every other piece, which saves half of the time; of all where that leaves none.
    """
    num_bands = NUM_HASHES // per_band
    codes = without_usual(codes, usual)
    half = without(codes, codes.codes_T & np.uint32(2) > 0)
    signature_RH = signatures(half)[:, : num_bands * per_band]
    return signature_RH.reshape(-1, num_bands, per_band)


@dataclass(frozen=True)
class FrameTexts:
    """Which texts hold the same 25 tokens, where ten or more do; sorted by text."""

    texts_N: np.ndarray
    hashes_N: np.ndarray

    def hashes_of(self, texts: list[int]) -> list[int]:
        """The hashes that some of the texts hold."""
        start = np.searchsorted(self.texts_N, texts, side="left")
        stop = np.searchsorted(self.texts_N, texts, side="right")
        return np.unique(self.hashes_N[token_places(start, stop - start)]).tolist()


def near_pairs(
    codes: Codes,
    signatures_RBK: np.ndarray,
    texts: np.ndarray,
    threshold: float,
    usual: np.ndarray,
    frames: FrameTexts,
    engine: Engine,
) -> tuple[list[NearPair], bool]:
    """Pairs of ``texts`` (positions in ``codes``, as in the signatures) above the threshold.

    ``usual`` are the pieces that do not count. Every cluster is connected, but not every pair of
    a cluster of more than 64 is listed. Also returns whether a frame kept texts apart.
    """
    pairs = _pairs(codes, signatures_RBK, texts, threshold, usual, engine)
    known = _Frames(codes, frames)
    return _without_frames(codes, pairs, threshold, usual, known, 0)


class _Frames:
    """Pieces of frames, found when they are asked for."""

    def __init__(self, codes: Codes, frames: FrameTexts):
        self.codes, self.frames = codes, frames
        order = np.argsort(frames.hashes_N, kind="stable")
        self.hashes, self.texts = frames.hashes_N[order], frames.texts_N[order]
        self.pieces: dict[int, np.ndarray] = {}

    def pieces_around(self, texts: list[int]) -> np.ndarray:
        """Of all frames that some of ``texts`` hold."""
        found = [self._pieces_of(number) for number in self.frames.hashes_of(texts)]
        empty = np.zeros(0, dtype=np.uint32)
        return np.unique(np.concatenate([empty, *found]))

    def _pieces_of(self, number: int) -> np.ndarray:
        if number not in self.pieces:
            wanted = np.uint64(number)
            start = np.searchsorted(self.hashes, wanted, side="left")
            stop = np.searchsorted(self.hashes, wanted, side="right")
            texts = np.unique(self.texts[start:stop])
            texts = texts[:: max(1, len(texts) // _FRAME_SAMPLE)]
            self.pieces[number] = in_many(self.codes.chosen(texts), BOILERPLATE_SHARE * len(texts))
        return self.pieces[number]


def _without_frames(
    codes: Codes,
    pairs: list[NearPair],
    threshold: float,
    usual: np.ndarray,
    frames: _Frames,
    depth: int,
) -> tuple[list[NearPair], bool]:
    """Compare again, in clusters with a frame, what is not part of it."""
    texts = np.unique(np.array([pair[:2] for pair in pairs], dtype=np.int64))
    clusters = Components(len(texts))
    firsts, seconds = (np.searchsorted(texts, [pair[n] for pair in pairs]) for n in (0, 1))
    clusters.join_all(firsts, seconds)
    has_frame = np.isin(texts, frames.frames.texts_N)
    kept: list[NearPair] = []
    is_open = np.zeros(len(texts), dtype=bool)
    pairs_of: dict[int, list[NearPair]] = {}
    for pair, label in zip(pairs, clusters.label[firsts].tolist(), strict=True):
        pairs_of.setdefault(label, []).append(pair)
    for label, members in clusters.members.items() if depth < _DEEPEST else ():
        is_large = len(members) >= BOILERPLATE_SPAN_ROWS
        if not is_large and not has_frame[members].any():
            continue
        own = texts[sorted(members)]
        sets = without_usual(codes.chosen(own), usual)
        frame = frames.pieces_around(own.tolist())
        if is_large:
            frame = np.union1d(frame, in_many(sets, BOILERPLATE_SPAN_ROWS - 1))
        num_rest, num_all = num_not_among(sets, frame), sets.lengths_R
        framed = (num_rest >= COPY * num_all) & (num_rest < num_all)
        if not framed.any():
            continue
        is_open[members] = True
        both = np.union1d(usual, frame)
        copies = set(own[~framed].tolist())
        kept += [pair for pair in pairs_of[label] if copies.issuperset(pair[:2])]
        if framed.sum() > 1:
            again = _search(codes, own[framed], threshold, both)
            if len(copies):
                again, _ = _without_frames(codes, again, threshold, both, frames, depth + 1)
            kept += again
    if not is_open.any():
        return pairs, False
    closed = set(texts[~is_open].tolist())
    return [pair for pair in pairs if pair[0] in closed] + kept, True


def _search(codes: Codes, texts: np.ndarray, threshold: float, usual: np.ndarray) -> list[NearPair]:
    """Pairs among some texts; all of them are compared where they are few."""
    if len(texts) > _FEW:
        bands = in_bands(codes.chosen(texts), usual, hashes_per_band(threshold))
        return _pairs(codes, bands, texts, threshold, usual, Here())
    sets = without_usual(codes.chosen(texts), usual)
    left, right = np.triu_indices(len(texts), 1)
    return _near(texts[left], texts[right], similarities(sets, left, right, threshold))


def _near(left: np.ndarray, right: np.ndarray, similarity_N: np.ndarray) -> list[NearPair]:
    near = np.flatnonzero(similarity_N)
    columns = (left[near].tolist(), right[near].tolist(), list(similarity_N[near]))
    return list(zip(*columns, strict=True))


def _pairs(
    codes: Codes,
    signatures_RBK: np.ndarray,
    texts: np.ndarray,
    threshold: float,
    usual: np.ndarray,
    engine: Engine,
) -> list[NearPair]:
    found: list[NearPair] = []
    clusters = Components(len(texts))
    num_bands = signatures_RBK.shape[1]
    shared = engine.share(signatures_RBK)
    todo = ((shared, band, threshold, _large(clusters)) for band in range(num_bands))
    for left, right in engine.map(_likely_pairs, todo):
        labels = clusters.label[left]
        together = labels == clusters.label[right]
        if together.any():  # no need to compare what a large cluster holds already
            sizes = np.bincount(clusters.label, minlength=len(texts))
            apart = ~together | (sizes[labels] <= MOST_NEIGHBORS)
            left, right = left[apart], right[apart]
        batches = (
            (
                *_codes_of_pairs(codes, texts[left[i : i + 4000]], texts[right[i : i + 4000]]),
                usual,
                threshold,
            )
            for i in range(0, len(left), 4000)
        )
        empty = np.zeros(0)
        similarity_N = np.concatenate([empty, *engine.map(_similarities, batches)])
        clusters.join_all(left[similarity_N > 0], right[similarity_N > 0])
        found += _near(texts[left], texts[right], similarity_N)
    return found


def _large(clusters: Components) -> np.ndarray:
    """(R,) a number for each large cluster, another one for each text that is in none."""
    label_R = clusters.label
    is_large_R = np.bincount(label_R, minlength=len(label_R))[label_R] > MOST_NEIGHBORS
    return np.where(is_large_R, label_R, len(label_R) + np.arange(len(label_R)))


def _likely_pairs(
    signatures_RBK: np.ndarray, band: int, threshold: float, large_R: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in this band and in none before it, and in enough hashes altogether.

    Not those that one large cluster holds already: there is no need to compare them.
    """
    least = threshold - 4 * 0.5 / NUM_HASHES**0.5  # four standard errors
    keys = np.zeros(len(signatures_RBK), dtype=np.uint64)
    for column in np.asarray(signatures_RBK[:, band]).T:
        keys = (keys << np.uint64(16)) | column
    several = may_repeat(mix(keys))  # most keys are there once
    order = several[np.argsort(keys[several], kind="stable")]
    found = [(np.zeros(0, dtype=np.int64),) * 2]
    alike = ((order[at], order[after]) for at, after in neighbors(keys[order], MOST_NEIGHBORS))
    apart = _in_different(large_R, alike)
    for left, right in _at_once(_new_since(signatures_RBK, band, apart)):
        equal_NBK = signatures_RBK[left] == signatures_RBK[right]
        bits = np.packbits(equal_NBK.reshape(len(left), -1), axis=1).view(np.uint64)
        num_equal = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        likely = np.flatnonzero(num_equal >= least * equal_NBK[0].size)
        likely = likely[~_agree(equal_NBK[likely])[:, :band].any(axis=1)]
        found.append((left[likely], right[likely]))
    both = [np.concatenate(side) for side in zip(*found, strict=True)]
    return both[0], both[1]


def _in_different(
    label_R: np.ndarray, parts: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for left, right in parts:
        apart = label_R[left] != label_R[right]
        yield left[apart], right[apart]


def _new_since(
    signatures_RBK: np.ndarray, band: int, parts: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Without pairs that agree in one of the bands just before: most were found there."""
    before = slice(max(0, band - _LOOKED_BACK), band)
    for left, right in parts:
        agree = _agree(signatures_RBK[left, before] == signatures_RBK[right, before])
        new = ~agree.any(axis=1)
        yield left[new], right[new]


def _agree(equal_NBK: np.ndarray) -> np.ndarray:
    """(N, B) whether all of a band are equal."""
    flat = equal_NBK.reshape(-1)
    agree = flat.copy()
    for offset in range(1, equal_NBK.shape[2]):
        agree[:-offset] &= flat[offset:]
    return agree.reshape(equal_NBK.shape)[:, :, 0]


def _at_once(
    parts: Iterator[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same pairs, _COMPARED_AT_ONCE at a time, since many parts are small."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for part in (*parts, None):
        if part is not None:
            waiting.append(part)
        num = sum(len(left) for left, _ in waiting)
        if num >= _COMPARED_AT_ONCE or (part is None and num):
            left, right = (np.concatenate(side) for side in zip(*waiting, strict=True))
            waiting = []
            for start in range(0, num, _COMPARED_AT_ONCE):
                yield (
                    left[start : start + _COMPARED_AT_ONCE],
                    right[start : start + _COMPARED_AT_ONCE],
                )


def _codes_of_pairs(
    codes: Codes, left: np.ndarray, right: np.ndarray
) -> tuple[Codes, np.ndarray, np.ndarray]:
    """Only the texts of some pairs, and the pairs as positions among these."""
    needed, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    return codes.chosen(needed), place[: len(left)], place[len(left) :]


def _similarities(
    codes: Codes, left: np.ndarray, right: np.ndarray, usual: np.ndarray, threshold: float
) -> np.ndarray:
    """Of each pair, 0 where it is not near."""
    return similarities(without_usual(codes, usual), left, right, threshold)
