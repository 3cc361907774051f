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
    0 matches count as .1 (Chen and Cherry 2014, method 1); brevity by the reference of the nearest
    length. Costs one pass over the n-grams, since only the two highest counts matter.
    """
    log_precision = np.zeros(len(sequences))
    for n in range(1, max_n + 1):
        counts = [Counter(ngrams(ids, n)) for ids in sequences]
        highest: dict[tuple[int, ...], tuple[int, int, int]] = {}  # count, its place, next count
        for place, of_one in enumerate(counts):
            for ngram, count in of_one.items():
                first, at, second = highest.get(ngram, (0, -1, 0))
                if count > first:
                    highest[ngram] = (count, place, first)
                elif count > second:
                    highest[ngram] = (first, at, count)
        for place, of_one in enumerate(counts):
            matched = 0
            for ngram, count in of_one.items():
                first, at, second = highest[ngram]
                matched += min(count, second if at == place else first)
            log_precision[place] += np.log((matched or 0.1) / max(1, sum(of_one.values()))) / max_n
    lengths = [len(ids) for ids in sequences]
    return np.minimum(1.0, np.exp(log_precision)) * [
        _brevity(length, lengths[:place] + lengths[place + 1 :])
        for place, length in enumerate(lengths)
    ]


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
        def mean_of(keep: np.ndarray) -> float:
            kept = [ids for ids, keeps in zip(texts[writer], keep, strict=True) if keeps]
            return float(self_bleu(kept).mean())

        return jackknife_values(mean_of, groups)

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


def _brevity(length: int, others: list[int]) -> float:
    nearest = min(others, key=lambda other: (abs(other - length), other), default=length)
    return 1.0 if length >= nearest else float(np.exp(1 - nearest / max(1, length)))
