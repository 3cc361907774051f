"""Longest word-for-word matches of a text with a corpus, from a suffix array over its tokens.

Built by prefix doubling that sorts again only what is still equal (Larsson and Sadakane 2007); each
text is looked up by a binary search that compares several tokens at once (Manber and Myers 1993).
Exact: nothing is hashed. A match never reaches over the end of a document.
"""

# D documents, N tokens of the corpus with an end after each document, T tokens of a text,
# Q tokens of many texts

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_Documents = Sequence[tuple[int, Sequence[int] | np.ndarray]]  # row index, token ids

_AT_ONCE = 1 << 18  # tokens looked up together: bounds the memory of a search
MOST_TOKENS = 2**31 - 2**20


@dataclass(frozen=True)
class VerbatimIndex:
    """A corpus of token ids that texts are searched in; 12 bytes a token.

    A place is a position in the documents one after another, with one more after each document.
    """

    _vocabulary: np.ndarray  # sorted token ids; their rank + 1 is their code, 0 is an end
    _bits: int  # of a code
    _keys_N: np.ndarray  # uint64: as many codes as fit, from each place on; zeros after an end
    _order_N: np.ndarray  # int32: places in the order of the texts that begin there
    _ends_D: np.ndarray  # place after the last token of each document
    rows_D: np.ndarray  # the name of each document, a number; several may share one

    @classmethod
    def build(
        cls, documents: Iterable[Sequence[int] | np.ndarray], rows: Sequence[int] | None = None
    ) -> "VerbatimIndex":
        """Index documents of token ids; ``rows`` names them, by default with their number.

        Takes about 8 s and 0.8 GB for 10 million tokens of text on one core, longer where long
        passages come many times. Raises ValueError for 2 billion tokens or more.
        """
        pieces = [np.asarray(ids, dtype=np.int32) for ids in documents]
        lengths_D = np.array([len(piece) for piece in pieces], dtype=np.int64)
        names_D = np.arange(len(pieces)) if rows is None else np.asarray(rows, dtype=np.int64)
        assert len(names_D) == len(pieces), f"{len(names_D)} names for {len(pieces)} documents"
        ends_D = np.cumsum(lengths_D + 1) - 1
        num = int(lengths_D.sum()) + len(pieces)
        if num > MOST_TOKENS:
            raise ValueError(f"An index holds at most {MOST_TOKENS} tokens, got {num}: sample.")
        tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
        del pieces
        occurs = np.zeros(int(tokens.max(initial=0)) + 1, dtype=bool)
        occurs[tokens] = True
        vocabulary = np.flatnonzero(occurs)
        bits = max(1, int(len(vocabulary) + 1).bit_length())  # one more, for unknown tokens
        codes_N = np.zeros(num, dtype=np.uint64)
        is_token = np.ones(num, dtype=bool)
        is_token[ends_D] = False
        codes_N[is_token] = np.cumsum(occurs)[tokens]
        del tokens, is_token
        keys_N = _packed(codes_N, bits)
        return cls(vocabulary, bits, keys_N, _sorted(keys_N, ends_D, 64 // bits), ends_D, names_D)

    @property
    def num_documents(self) -> int:
        return len(self._ends_D)

    @property
    def num_tokens(self) -> int:
        return len(self._keys_N) - len(self._ends_D)

    def matches(
        self, ids_T: Sequence[int] | np.ndarray, without_row: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Length of the longest match from each token on, and one place where it lies, or -1.

        Nothing is found in the documents that ``without_row`` names. See ``matches_of``.
        """
        rows = None if without_row is None else [without_row]
        return self.matches_of([ids_T], rows)[0]

    def matches_of(
        self, texts: Sequence[Sequence[int] | np.ndarray], without_rows: Sequence[int] | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """``matches`` of each text, many at once: a million tokens take seconds.

        ``without_rows`` names, for each text, documents that it is not searched in, such as the one
        that it continues.
        """
        found: list[tuple[np.ndarray, np.ndarray]] = []
        start = 0
        while start < len(texts):
            stop, total = start, 0
            while stop < len(texts) and (stop == start or total + len(texts[stop]) <= _AT_ONCE):
                total += len(texts[stop])
                stop += 1
            rows = None if without_rows is None else np.asarray(without_rows[start:stop])
            found += self._search(texts[start:stop], rows)
            start = stop
        return found

    def document_of(self, place: int) -> tuple[int, int]:
        """Number of the document that a place lies in, and the token of it."""
        document = int(np.searchsorted(self._ends_D, place))
        return document, place - (int(self._ends_D[document - 1]) + 1 if document else 0)

    def _search(
        self, texts: Sequence[Sequence[int] | np.ndarray], rows: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        lengths = np.array([len(ids) for ids in texts], dtype=np.int64)
        ends = np.cumsum(lengths + 1) - 1
        codes_Q = np.zeros(int(lengths.sum()) + len(texts), dtype=np.uint64)
        is_token = np.ones(len(codes_Q), dtype=bool)
        is_token[ends] = False
        if is_token.any():
            codes_Q[is_token] = self._codes(
                np.concatenate([np.asarray(ids, dtype=np.int64) for ids in texts])
            )
        keys_Q = _packed(codes_Q, self._bits)
        asked = np.flatnonzero(is_token)
        places_Q = np.full(len(codes_Q), -1, dtype=np.int64)
        lengths_Q = np.zeros(len(codes_Q), dtype=np.int64)
        if len(asked) and self.num_tokens:
            rank = self._ranks(keys_Q, asked)
            before, after = rank - 1, rank
            if rows is not None:
                unwanted = np.repeat(rows, lengths)
                before, after = self._outside(before, after, unwanted)
            best, place = np.zeros(len(asked), dtype=np.int64), np.full(len(asked), -1)
            for neighbor in (before, after):
                there = np.flatnonzero((neighbor >= 0) & (neighbor < len(self._order_N)))
                begins = self._order_N[neighbor[there]].astype(np.int64)
                common = self._common(keys_Q, asked[there], begins)
                better = common > best[there]
                best[there[better]], place[there[better]] = common[better], begins[better]
            lengths_Q[asked], places_Q[asked] = best, place
        starts = ends - lengths
        return [
            (lengths_Q[a:b], places_Q[a:b])
            for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def _codes(self, ids: np.ndarray) -> np.ndarray:
        unknown = len(self._vocabulary)
        if not unknown:
            return np.ones(len(ids), dtype=np.uint64)
        rank = np.minimum(np.searchsorted(self._vocabulary, ids), unknown - 1)
        return np.where(self._vocabulary[rank] == ids, rank + 1, unknown + 1).astype(np.uint64)

    def _ranks(self, keys_Q: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """How many texts of the corpus come before the one that begins at each place asked for.

        What the neighbors on both sides have in common with the text, all texts between them have.
        """
        per_key = 64 // self._bits
        low = np.zeros(len(asked), dtype=np.int64)
        high = np.full(len(asked), len(self._order_N))
        low_common, high_common = np.zeros_like(low), np.zeros_like(low)  # in keys
        searching = np.arange(len(asked))
        while len(searching):
            middle = (low[searching] + high[searching]) >> 1
            depth = np.minimum(low_common[searching], high_common[searching])
            begins = self._order_N[middle].astype(np.int64)
            own = keys_Q[asked[searching] + depth * per_key]
            other = self._keys_N[begins + depth * per_key]
            equal = np.flatnonzero((own == other) & (own & self._last_code != 0))
            while len(equal):
                depth[equal] += 1
                step = depth[equal] * per_key
                own[equal] = keys_Q[asked[searching[equal]] + step]
                other[equal] = self._keys_N[begins[equal] + step]
                same = (own[equal] == other[equal]) & (own[equal] & self._last_code != 0)
                equal = equal[same]
            smaller = other < own
            left, right = searching[smaller], searching[~smaller]
            low[left], low_common[left] = middle[smaller] + 1, depth[smaller]
            high[right], high_common[right] = middle[~smaller], depth[~smaller]
            searching = searching[low[searching] < high[searching]]
        return low

    def _common(self, keys_Q: np.ndarray, asked: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """Tokens that the text at each place asked for shares with the corpus from ``begins``."""
        per_key = 64 // self._bits
        common = np.zeros(len(asked), dtype=np.int64)
        active = np.arange(len(asked))
        while len(active):
            own = keys_Q[asked[active] + common[active]]
            other = self._keys_N[begins[active] + common[active]]
            whole = (own == other) & (own & self._last_code != 0)
            ending = ~whole
            differ = own[ending] ^ other[ending]
            shared = np.zeros(ending.sum(), dtype=np.int64)
            for number in range(per_key):
                shift = np.uint64(self._bits * (per_key - 1 - number))
                is_token = (own[ending] >> shift) & self._last_code != 0
                shared += ((differ >> shift) == 0) & is_token
            common[active[ending]] += shared
            active = active[whole]
            common[active] += per_key
        return common

    def _outside(
        self, before: np.ndarray, after: np.ndarray, unwanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest neighbors that do not lie in unwanted documents, or none (out of range)."""
        names_N, first_N, last_N = self._runs
        num = len(self._order_N)
        low, high = np.clip(before, 0, num - 1), np.clip(after, 0, num - 1)
        before = np.where((before >= 0) & (names_N[low] == unwanted), first_N[low] - 1, before)
        after = np.where((after < num) & (names_N[high] == unwanted), last_N[high] + 1, after)
        return before, after

    @cached_property
    def _runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The row of each text in order, with the first and the last of its run of that row."""
        names_N = self.rows_D[np.searchsorted(self._ends_D, self._order_N)].astype(np.int64)
        changes = np.flatnonzero(names_N[1:] != names_N[:-1])
        firsts, lasts = np.append(0, changes + 1), np.append(changes, len(names_N) - 1)
        sizes = lasts - firsts + 1
        return (
            names_N,
            np.repeat(firsts, sizes).astype(np.int32),
            np.repeat(lasts, sizes).astype(np.int32),
        )

    @property
    def _last_code(self) -> np.uint64:
        """Mask of the last code in a key: zero there means that the text ends within the key."""
        return np.uint64((1 << self._bits) - 1)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """As many codes as fit into 64 bits from each place on; zeros from the first end on."""
    num = len(codes)
    padded = np.append(codes, np.zeros(64 // bits, dtype=np.uint64))
    keys, inside = codes.copy(), codes != 0
    for number in range(1, 64 // bits):
        following = padded[number : num + number]
        inside &= following != 0
        keys <<= np.uint64(bits)
        np.bitwise_or(keys, following, out=keys, where=inside)
    return keys


def _sorted(keys_N: np.ndarray, ends_D: np.ndarray, per_key: int) -> np.ndarray:
    """Places in the order of the texts that begin there, each up to the end of its document."""
    num = len(keys_N)
    if not num:
        return np.zeros(0, dtype=np.int32)
    begins_D = np.append(0, ends_D[:-1] + 1)
    left_N = np.repeat(ends_D, ends_D - begins_D + 1)
    left_N -= np.arange(num)
    left_N = left_N.astype(np.int32)  # tokens before the end
    order_N = np.argsort(keys_N).astype(np.int32)
    rank_N = np.empty(num, dtype=np.int32)  # equal so far: the number of texts before them
    slots = np.arange(num)
    key = keys_N[order_N]
    suffixes, reach = order_N, per_key
    while True:
        new = np.append(True, key[1:] != key[:-1])
        rank_N[suffixes] = slots[np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))]
        unsettled = ~(new & np.append(new[1:], True)) & (left_N[suffixes] >= reach)
        slots = slots[unsettled]
        if not len(slots):
            return order_N
        suffixes = order_N[slots]
        key = rank_N[suffixes].astype(np.int64) << 32
        key |= rank_N[suffixes + np.int32(reach)]
        by_key = np.argsort(key)
        key, suffixes = key[by_key], suffixes[by_key]
        order_N[slots] = suffixes
        reach *= 2


@dataclass(frozen=True)
class Corpora:
    """What generated text is searched in: training text, and equal amounts of it and of others.

    The longest match grows with the corpus, so training text is compared with held-out text in
    samples of about equally many tokens.
    """

    train: VerbatimIndex
    train_sample: VerbatimIndex
    heldout: VerbatimIndex
    complete: bool = True  # ``train`` is all of the training text

    @classmethod
    def build(
        cls,
        train: _Documents,
        heldout: _Documents,
        seed: int = 0,
        complete: bool = True,
    ) -> "Corpora":
        """From (row index, token ids) of each document; the samples are whole documents."""
        most = min(sum(len(ids) for _, ids in part) for part in (train, heldout))
        return cls(
            _index(train),
            _index(_sampled(train, most, seed)),
            _index(_sampled(heldout, most, seed)),
            complete,
        )


def _index(documents: _Documents) -> VerbatimIndex:
    return VerbatimIndex.build([ids for _, ids in documents], [row for row, _ in documents])


def _sampled(documents: _Documents, most: int, seed: int) -> _Documents:
    """Documents in random order until they have ``most`` tokens, the last one cut."""
    chosen, total = [], 0
    for place in np.random.default_rng(seed).permutation(len(documents)):
        row, ids = documents[place]
        if total >= most:
            break
        chosen.append((row, ids[: most - total]))
        total += len(ids)
    return chosen
