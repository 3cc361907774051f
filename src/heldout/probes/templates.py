"""Templates: how alike a model's answers to different prompts are, against base and human text."""

# P prompts, F features

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.equal_lengths import EqualLengths, equal_lengths, too_few
from heldout.core.jackknife import jackknife_values
from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.ngrams import ngrams
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    paired_difference,
    ratio_estimate,
)

SOURCE = "self-BLEU: Zhu et al. 2018, arXiv 1802.01886; intervals: jackknife over blocks of groups"
COST = "nothing beyond the shared generations; a second for 100 texts"

MOST_TEXTS = 200  # pairs grow with the square
NEAR_IDENTICAL = 0.8  # similarity: about one changed token in ten


@dataclass(frozen=True)
class Templates(Probe):
    """Self-BLEU, mean similarity of pairs, and the share of texts that have a near twin."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            beside = equal_lengths(evidence, model)
            if beside is not None:
                found += _of(model, beside)
            elif model == "best":
                found += [
                    too_few("self_bleu_best", evidence),
                    too_few("template_similarity_best", evidence),
                ]
        return found


def self_bleu(sequences: Sequence[Sequence[int] | np.ndarray], max_n: int = 4) -> np.ndarray:
    """BLEU of each sequence against all others as references, 0 to 1: high where they are alike.

    Precisions of 1- to ``max_n``-grams, clipped at the highest count in any one other sequence;
    0 matches count as 0.1 (Chen and Cherry 2014, method 1); brevity by the reference of the nearest
    length. Costs one pass over the n-grams, since only the two highest counts matter.
    """
    counted = [NgramCounts.of(sequences, n) for n in range(1, max_n + 1)]
    lengths_P = np.array([len(ids) for ids in sequences], dtype=np.int64)
    return _self_bleu(counted, lengths_P, np.ones(len(sequences), dtype=bool))


@dataclass(frozen=True)
class NgramCounts:
    """How often each n-gram stands in each sequence, one entry for both; the highest first."""

    sequence_E: np.ndarray
    ngram_E: np.ndarray  # its number; in ascending order
    count_E: np.ndarray
    total_P: np.ndarray  # n-grams of each sequence

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int] | np.ndarray], n: int) -> "NgramCounts":
        """Of all sequences, by place."""
        numbers: dict[tuple[int, ...], int] = {}
        entries = [
            (numbers.setdefault(ngram, len(numbers)), -count, place)
            for place, ids in enumerate(sequences)
            for ngram, count in Counter(ngrams(ids, n)).items()
        ]
        entries_E3 = np.array(sorted(entries), dtype=np.int64).reshape(-1, 3)
        totals = [max(0, len(ids) - n + 1) for ids in sequences]
        return cls(entries_E3[:, 2], entries_E3[:, 0], -entries_E3[:, 1], np.array(totals))

    def matched(self, keep_P: np.ndarray) -> np.ndarray:
        """Of each sequence that is kept, its n-grams that stand in another one as well.

        Each as often as in the one of the others that has it most often.
        """
        kept = np.flatnonzero(keep_P[self.sequence_E])
        ngram_E, count_E = self.ngram_E[kept], self.count_E[kept]
        is_first_E = np.append(True, ngram_E[1:] != ngram_E[:-1])[: len(kept)]
        highest_E = count_E[np.maximum.accumulate(np.where(is_first_E, np.arange(len(kept)), 0))]
        next_E = np.append(count_E[1:], 0)
        next_E[np.append(is_first_E[1:], True)[: len(kept)]] = 0
        of_others_E = np.where(is_first_E, next_E, highest_E)
        weights_E = np.minimum(count_E, of_others_E)
        return np.bincount(self.sequence_E[kept], weights_E, len(keep_P))[keep_P]


def _self_bleu(
    counted: Sequence[NgramCounts], lengths_P: np.ndarray, keep_P: np.ndarray
) -> np.ndarray:
    """Of the sequences that are kept, against one another."""
    log_precision = np.zeros(np.count_nonzero(keep_P))
    for counts in counted:
        matched = counts.matched(keep_P)
        precision = np.where(matched > 0, matched, 0.1) / np.maximum(1, counts.total_P[keep_P])
        log_precision += np.log(precision) / len(counted)
    return np.minimum(1.0, np.exp(log_precision)) * _brevity(lengths_P[keep_P])


def pair_similarity(sequences: Sequence[Sequence[int] | np.ndarray], n: int = 3) -> np.ndarray:
    """(P, P) Jaccard similarity of the sets of n-grams: 1 for equal texts, 0 for none in common."""
    sets = [sorted(set(ngrams(ids, n))) for ids in sequences]
    features = {ngram: place for place, ngram in enumerate({g for s in sets for g in s})}
    has_PF = np.zeros((len(sets), max(1, len(features))), dtype=np.float32)
    for place, of_one in enumerate(sets):
        has_PF[place, [features[ngram] for ngram in of_one]] = 1
    both = (has_PF @ has_PF.T).astype(np.float64)
    sizes = has_PF.sum(axis=1, dtype=np.float64)
    either = sizes[:, None] + sizes[None] - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def _of(model: str, beside: EqualLengths) -> list[Measurement]:
    chosen = np.arange(len(beside))
    if len(chosen) > MOST_TEXTS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(beside))[:MOST_TEXTS])
    groups = beside.groups_P[chosen]
    texts = {writer: [ids[i] for i in chosen] for writer, ids in beside.ids.items()}
    other_group = groups[:, None] != groups[None]
    similar = {writer: pair_similarity(own) for writer, own in texts.items()}

    def bleu(writer: str) -> np.ndarray:
        counted = [NgramCounts.of(texts[writer], n) for n in range(1, 5)]
        lengths = np.array([len(ids) for ids in texts[writer]])
        return jackknife_values(
            lambda keep: float(_self_bleu(counted, lengths, keep).mean()), groups
        )

    def similarity(writer: str) -> np.ndarray:
        def mean_of(keep: np.ndarray) -> float:
            pairs = other_group[np.ix_(keep, keep)]
            return float(similar[writer][np.ix_(keep, keep)][pairs].mean())

        return jackknife_values(mean_of, groups)

    twins = {}
    for writer in texts:
        nearest = np.where(other_group, similar[writer], 0).max(axis=1)
        twins[writer] = share_estimate(nearest >= NEAR_IDENTICAL, groups)
    return [
        _measured(f"self_bleu_{model}", "BLEU", {w: bleu(w) for w in texts}, model, groups),
        _measured(
            f"template_similarity_{model}",
            "mean Jaccard of pairs",
            {writer: similarity(writer) for writer in texts},
            model,
            groups,
        ),
        _near_identical(model, twins, groups),
    ]


def _measured(
    name: str, unit: str, pseudo: dict[str, np.ndarray], model: str, groups: np.ndarray
) -> Measurement:
    blocks = np.arange(len(pseudo[model]))
    ones = np.ones(len(blocks))
    level = ratio_estimate(pseudo[model], ones, blocks)
    return Measurement(
        name=name,
        value=level.value,
        unit=unit,
        num_units=len(np.unique(groups)),
        resampled_unit="group of prompts",
        interval=level.interval,
        contrasts={
            control: paired_difference(pseudo[model], values, ones, blocks).as_contrast()
            for control, values in pseudo.items()
            if control != model
        },
    )


def _near_identical(
    model: str, twins: dict[str, tuple[float, Interval]], groups: np.ndarray
) -> Measurement:
    share, interval = twins[model]
    return Measurement(
        name=f"near_identical_{model}",
        value=share,
        unit="share of texts",
        num_units=len(np.unique(groups)),
        resampled_unit="group of prompts",
        interval=interval,
        contrasts={
            control: difference_of_shares((share, interval), estimate)
            for control, estimate in twins.items()
            if control != model
        },
        note=f"with the answer to a prompt of another group, at {NEAR_IDENTICAL:g} of all 3-grams",
    )


def _brevity(lengths_P: np.ndarray) -> np.ndarray:
    """Of each length beside the nearest of the others, the shorter one of two."""
    if len(lengths_P) < 2:
        return np.ones(len(lengths_P))
    apart_PP = np.abs(lengths_P[:, None] - lengths_P[None])
    rank_PP = 2.0 * apart_PP + (lengths_P[None] > lengths_P[:, None])
    np.fill_diagonal(rank_PP, np.inf)
    nearest_P = lengths_P[rank_PP.argmin(axis=1)]
    short_P = np.exp(1 - nearest_P / np.maximum(1, lengths_P))
    return np.where(lengths_P >= nearest_P, 1.0, short_P)
