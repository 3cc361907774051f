"""How unlike the rest of the data a text is: bits per token under a word model of the others.

Cross-validated: the model that judges a text has seen neither it nor its duplicates. Words and
pairs of words are counted in hashed tables, so that memory does not grow with the data.
"""

# R texts, T tokens

import numpy as np

from heldout.data.shingles import Codes, mix, slices

NUM_FOLDS = 5
_WORDS, _PAIRS = 1 << 20, 1 << 22  # powers of two
_TOKENS_AT_ONCE = 100_000  # that fit the cache


def cross_validated_bits(codes: Codes, texts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Bits per token of each of ``texts``; texts of one label are in one fold. 0 for no tokens.

    Half the weight is on the pair of words, four tenths on the word, a tenth on any word at all.
    Memory: 130 MB.
    """
    words = np.zeros((NUM_FOLDS, _WORDS), dtype=np.int32)
    pairs = np.zeros((NUM_FOLDS, _PAIRS), dtype=np.int32)
    fold_R = (mix(labels.astype(np.uint64)) % np.uint64(NUM_FOLDS)).astype(np.int64)
    lengths = codes.ends_R[texts] - codes.starts_of(texts)
    runs = list(slices(lengths, _TOKENS_AT_ONCE))
    one = np.int32(1)  # of another kind than the tables it would take ten times as long
    for start, stop in runs:
        word_T, pair_T, fold_T, _ = _tokens(codes, texts[start:stop], fold_R[start:stop])
        np.add.at(words.reshape(-1), fold_T * _WORDS + word_T, one)
        np.add.at(pairs.reshape(-1), fold_T * _PAIRS + pair_T, one)
    totals = words.sum(axis=1)
    all_words = words.sum(axis=0, dtype=np.int32)
    all_pairs = pairs.sum(axis=0, dtype=np.int32)
    last = 0  # the word before the first one of a run
    bits_R = np.zeros(len(texts))
    for start, stop in runs:
        word_T, pair_T, fold_T, text_T = _tokens(codes, texts[start:stop], fold_R[start:stop])
        word_count = all_words[word_T] - words[fold_T, word_T]
        pair_count = all_pairs[pair_T] - pairs[fold_T, pair_T]
        before = np.concatenate(([last], word_T[:-1]))
        before_count = np.maximum(all_words[before] - words[fold_T, before], 1)
        seen = np.maximum(totals.sum() - totals[fold_T], 1)
        chance = 0.5 * np.minimum(pair_count / before_count, 1)
        chance += 0.4 * word_count / seen + 0.1 / _WORDS
        total = np.bincount(text_T, weights=-np.log2(chance), minlength=stop - start)
        last = int(word_T[-1]) if len(word_T) else last
        bits_R[start:stop] = total / np.maximum(lengths[start:stop], 1)
    return bits_R


def _tokens(codes: Codes, texts: np.ndarray, fold_R: np.ndarray) -> tuple[np.ndarray, ...]:
    """Word and pair buckets, fold and text of each token; a first word has none before it."""
    chosen = codes.chosen(texts)
    lengths = chosen.lengths_R
    wide = chosen.codes_T.astype(np.uint64)
    before = np.concatenate((np.zeros(1, dtype=np.uint64), wide[:-1]))[: len(wide)]
    starts = (chosen.ends_R - lengths)[lengths > 0]
    before[starts] = 0
    pair_T = mix(before * np.uint64(0x9E3779B97F4A7C15) + wide) & np.uint64(_PAIRS - 1)
    word_T = (wide & np.uint64(_WORDS - 1)).astype(np.int64)
    text_T = np.repeat(np.arange(len(texts)), lengths)
    return word_T, pair_T.astype(np.int64), fold_R[text_T], text_T


def robust_z(values: np.ndarray) -> np.ndarray:
    """Distance from the median in units of 1.48 median absolute deviations."""
    if not len(values):
        return values
    center = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - center))
    return (values - center) / max(float(spread), 1e-9)
