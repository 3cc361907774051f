"""Near duplicates: texts with half of their pieces in common, from MinHash bands, verified.

What many texts hold says nothing of two of them. Pieces in more than half of all texts do not
count. Nor do pieces of a frame: of 25 tokens in a row that ten texts or more hold, what half of
these texts hold; and inside a cluster of ten texts or more, what ten of them hold. They do count in
texts that hold hardly anything else: these are copies.
"""

# R texts, B bands of K hash functions

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heldout.data.pairs import (
    BOILERPLATE_SPAN_ROWS,
    PAIRS_AT_ONCE,
    Components,
    Engine,
    Here,
    neighbors,
)
from heldout.data.pieces import NUM_HASHES, are_near, jaccard, piece_set, signatures
from heldout.data.shingles import Codes, token_places

MISS_RATE = 0.02  # of pairs whose similarity is the threshold; fewer above it
MOST_NEIGHBORS = 64  # rows of one band that a row is compared with; 16 where there are more
BOILERPLATE_SHARE = 0.5
BOILERPLATE_ROWS = 20
BOILERPLATE_SAMPLE = 2000  # texts that tell what more than half of all texts hold
COPY = 1 / 8  # of its pieces that a text of a cluster has for itself, under which it is a copy
_DEEPEST = 3  # frames within frames
_FEW = 20  # texts that are all compared with one another
_FRAME_SAMPLE = 20  # texts with a frame that tell its pieces

NearPair = tuple[int, int, float]


def boilerplate_pieces(sample: Codes) -> np.ndarray:
    """Sorted pieces that stand in more than half of at least 20 different texts."""
    num = len(sample.ends_R)
    if num < BOILERPLATE_ROWS:
        return np.zeros(0, dtype=np.uint32)
    return _in_many(_sets(sample, np.zeros(0, dtype=np.uint32)), BOILERPLATE_SHARE * num)


def _sets(codes: Codes, usual: np.ndarray) -> list[np.ndarray]:
    return [piece_set(codes.of(text), usual) for text in range(len(codes.ends_R))]


def _in_many(sets: list[np.ndarray], more_than: float) -> np.ndarray:
    found, num_texts = np.unique(np.concatenate(sets), return_counts=True)
    return found[num_texts > more_than]


def hashes_per_band(threshold: float) -> int:
    """The most hashes per band with which MISS_RATE of the pairs at the threshold are missed."""
    fitting = [
        per_band
        for per_band in range(1, 5)
        if (1 - threshold**per_band) ** (NUM_HASHES // per_band) <= MISS_RATE
    ]
    return max(fitting, default=1)


def in_bands(codes: Codes, usual: np.ndarray, per_band: int) -> np.ndarray:
    """Signatures as (R, B, K)."""
    num_bands = NUM_HASHES // per_band
    signature_RH = signatures(codes, usual)[:, : num_bands * per_band]
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
    pairs = list(_pairs(codes, signatures_RBK, texts, threshold, usual, engine))
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
            sets = _sets(self.codes.chosen(texts), np.zeros(0, dtype=np.uint32))
            self.pieces[number] = _in_many(sets, BOILERPLATE_SHARE * len(texts))
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
    for a, b in zip(firsts.tolist(), seconds.tolist(), strict=True):
        clusters.join(a, b)
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
        sets = _sets(codes.chosen(own), usual)
        frame = frames.pieces_around(own.tolist())
        if is_large:
            frame = np.union1d(frame, _in_many(sets, BOILERPLATE_SPAN_ROWS - 1))
        num_rest = np.array([len(np.setdiff1d(each, frame, True)) for each in sets])
        num_all = np.array([len(each) for each in sets])
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
        return list(_pairs(codes, bands, texts, threshold, usual, Here()))
    sets = _sets(codes.chosen(texts), usual)
    found = []
    for a, b in itertools.combinations(range(len(texts)), 2):
        sizes = sorted((len(sets[a]), len(sets[b])))
        if sizes[0] < threshold * sizes[1]:
            continue  # more than this they cannot have in common
        similarity = jaccard(sets[a], sets[b])
        if are_near(sets[a], sets[b], similarity, threshold):
            found.append((int(texts[a]), int(texts[b]), similarity))
    return found


def _pairs(
    codes: Codes,
    signatures_RBK: np.ndarray,
    texts: np.ndarray,
    threshold: float,
    usual: np.ndarray,
    engine: Engine,
) -> Iterator[NearPair]:
    clusters = Components(len(texts))
    num_bands = signatures_RBK.shape[1]
    shared = engine.share(signatures_RBK)
    todo = ((shared, band, threshold) for band in range(num_bands))
    for left, right in engine.map(_likely_pairs, todo):
        together = clusters.label[left] == clusters.label[right]
        if together.any():  # no need to compare what a large cluster holds already
            sizes = [clusters.size_of(int(label)) for label in clusters.label[left[together]]]
            together[together] = np.array(sizes) > MOST_NEIGHBORS
            left, right = left[~together], right[~together]
        batches = (
            (
                *_codes_of_pairs(codes, texts[left[i : i + 2000]], texts[right[i : i + 2000]]),
                usual,
                threshold,
            )
            for i in range(0, len(left), 2000)
        )
        at = 0
        for similarities in engine.map(_similarities, batches):
            for similarity in similarities:
                a, b = int(left[at]), int(right[at])
                at += 1
                if similarity:
                    clusters.join(a, b)
                    yield int(texts[a]), int(texts[b]), similarity


def _likely_pairs(
    signatures_RBK: np.ndarray, band: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in this band and in none before it, and in enough hashes altogether."""
    least = threshold - 4 * 0.5 / NUM_HASHES**0.5  # four standard errors
    keys = np.zeros(len(signatures_RBK), dtype=np.uint64)
    for column in np.asarray(signatures_RBK[:, band]).T:
        keys = (keys << np.uint64(16)) | column
    order = np.argsort(keys, kind="stable")
    found = [(np.zeros(0, dtype=np.int64),) * 2]
    for at, after in neighbors(keys[order], MOST_NEIGHBORS):
        for start in range(0, len(at), PAIRS_AT_ONCE):
            left = order[at[start : start + PAIRS_AT_ONCE]]
            right = order[after[start : start + PAIRS_AT_ONCE]]
            equal_NBK = signatures_RBK[left] == signatures_RBK[right]
            num_equal = np.count_nonzero(equal_NBK, axis=(1, 2))
            likely = np.flatnonzero(num_equal >= least * equal_NBK[0].size)
            likely = likely[equal_NBK[likely].all(axis=2).argmax(axis=1) == band]
            found.append((left[likely], right[likely]))
    both = [np.concatenate(side) for side in zip(*found, strict=True)]
    return both[0], both[1]


def _codes_of_pairs(
    codes: Codes, left: np.ndarray, right: np.ndarray
) -> tuple[Codes, np.ndarray, np.ndarray]:
    """Only the texts of some pairs, and the pairs as positions among these."""
    needed, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    return codes.chosen(needed), place[: len(left)], place[len(left) :]


def _similarities(
    codes: Codes, left: np.ndarray, right: np.ndarray, usual: np.ndarray, threshold: float
) -> list[float]:
    """Of each pair, 0 where it is not near."""
    sets = _sets(codes, usual)
    found = []
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        similarity = jaccard(sets[a], sets[b])
        found.append(similarity if are_near(sets[a], sets[b], similarity, threshold) else 0.0)
    return found
