"""Losses of ensembles that average probabilities, for every size, and where they would end.

The probability that an ensemble gives a token is the mean of its members', so its loss follows
from the members' losses of the true tokens alone; no distribution over the vocabulary is needed.
Averaged over all subsets of one size the loss never rises with the size. To second order it falls
as L(K) = L_inf + A / K, the law that Kim et al. 2025 (arXiv 2509.14786) fit; L_inf is what members
without end would reach.
"""

# K members, N scored tokens, G groups, S subsets

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import comb, inf

import numpy as np
from numpy.typing import ArrayLike

from heldout.core.measurement import Interval, NotMeasured
from heldout.core.results.ensemble import Asymptote, FittedLoss
from heldout.core.stats import (
    RatioEstimate,
    group_sums,
    paired_difference,
    ratio_estimate,
    ratio_with_further_error,
)

LEAST_MEMBERS = 3  # for the asymptote: two sizes give a line, with nothing left to test it
MAX_SUBSETS = 128  # of one size: all of them up to 9 members
METHOD = "jackknife over members and Student t over groups, longer where they are skewed"


def mixture_nats(nats_KN: ArrayLike) -> np.ndarray:
    """Loss (N,) of each token under the mean probability of K members, from theirs (K, N).

    -log(mean of exp(-nats)), in nats: the log-sum-exp of -nats minus log K, negated.
    """
    nats_KN = np.asarray(nats_KN, dtype=np.float64)
    least_N = nats_KN.min(axis=0)
    return least_N - np.log(np.exp(least_N - nats_KN).mean(axis=0))


@dataclass(frozen=True)
class EnsembleLosses:
    """Summed losses of ensembles of subsets of the members, by group of documents."""

    subsets: tuple[tuple[int, ...], ...]
    nats_SG: np.ndarray
    num_tokens_G: np.ndarray

    @cached_property
    def num_members(self) -> int:
        return max(map(len, self.subsets))

    @property
    def num_groups(self) -> int:
        return len(self.num_tokens_G)

    def num_subsets(self, size: int) -> int:
        """Ensembles of that size that were measured."""
        return len(self._of_size(size, None))

    def nats_G(self, size: int, *, without: int | None = None) -> np.ndarray:
        """Summed loss of each group, the mean over the ensembles of that size.

        ``without`` leaves out the ensembles that have this member.
        """
        return self.nats_SG[self._of_size(size, without)].mean(axis=0)

    def nats_of(self, subset: tuple[int, ...]) -> np.ndarray:
        """Summed loss of each group under one measured ensemble; its members in rising order."""
        return self.nats_SG[self.subsets.index(subset)]

    def estimate_of(self, subset: tuple[int, ...]) -> RatioEstimate:
        """Nats per token of one measured ensemble, with its interval over groups."""
        return ratio_estimate(self.nats_of(subset), self.num_tokens_G, range(self.num_groups))

    def loss(self, size: int) -> float:
        """Nats per token, the mean over the ensembles of that size."""
        return float(self.nats_G(size).sum() / self.num_tokens_G.sum())

    def estimate(self, size: int) -> RatioEstimate:
        """``loss`` with its interval over groups, given these members."""
        return ratio_estimate(self.nats_G(size), self.num_tokens_G, range(self.num_groups))

    def gain(self, size: int = 0) -> RatioEstimate:
        """The mean member's loss minus that of ensembles of ``size``, by default of all members.

        Nats per token, paired by group; the interval is given these members.
        """
        return paired_difference(
            self.nats_G(1),
            self.nats_G(size or self.num_members),
            self.num_tokens_G,
            range(self.num_groups),
        )

    def fitted_nats_G(self, size: float = inf, *, without: int | None = None) -> np.ndarray:
        """What the fitted law takes from each group: their sum over all tokens is ``fitted``.

        For paired resampling of groups together with other models on the same documents.
        """
        num = self.num_members - (without is not None)
        sizes = np.arange(1, num + 1)
        weights = law_weights(sizes, size)
        sums = (self.nats_G(each, without=without) for each in sizes.tolist())
        return sum(weight * nats_G for weight, nats_G in zip(weights, sums, strict=True))

    def fitted(self, size: float = inf) -> float:
        """L_inf + A / size, fitted by least squares to the losses of all sizes; nats per token."""
        return float(self.fitted_nats_G(size).sum() / self.num_tokens_G.sum())

    def _of_size(self, size: int, without: int | None) -> list[int]:
        return [
            place
            for place, subset in enumerate(self.subsets)
            if len(subset) == size and without not in subset
        ]


def ensemble_losses(
    nats_KN: ArrayLike, groups_N: ArrayLike, *, max_subsets: int = MAX_SUBSETS, seed: int = 0
) -> EnsembleLosses:
    """Losses of the ensembles of all subsets of K members, from the members' losses (K, N).

    nats_KN: nats of the true token, the same N tokens in the same order for each member.
    groups_N: the group of each token's document, which intervals resample.
    Of sizes with more than ``max_subsets`` subsets as many are drawn, by ``seed``, such that each
    member is in equally many. Costs K N exponentials at most for each subset.

    ValueError where a loss is no finite number or the shapes do not fit.
    """
    nats_KN = np.asarray(nats_KN, dtype=np.float64)
    names, index_N = np.unique(np.asarray(groups_N), return_inverse=True)
    if nats_KN.ndim != 2 or nats_KN.shape[1] != len(index_N) or not nats_KN.size:
        raise ValueError(f"Losses {nats_KN.shape} must be (members, {len(index_N)} tokens).")
    if not np.isfinite(nats_KN).all():
        raise ValueError("A token's loss is not a finite number.")
    subsets = tuple(_subsets(len(nats_KN), max_subsets, np.random.default_rng(seed)))
    nats_SG = np.stack(
        [
            np.bincount(index_N, mixture_nats(nats_KN[list(subset)]), len(names))
            for subset in subsets
        ]
    )
    return EnsembleLosses(subsets, nats_SG, group_sums(np.ones(len(index_N)), index_N))


def law_weights(sizes: ArrayLike, size: float) -> np.ndarray:
    """Weights of the losses at ``sizes`` whose sum is the fitted L_inf + A / ``size``."""
    inverse = 1 / np.asarray(sizes, dtype=np.float64)
    from_mean = inverse - inverse.mean()
    return 1 / len(inverse) + (1 / size - inverse.mean()) * from_mean / (from_mean**2).sum()


def fitted_loss(losses: EnsembleLosses, size: float = inf, *, level: float = 0.95) -> FittedLoss:
    """The law at ``size`` members, infinity by default; needs ``LEAST_MEMBERS``."""
    value, interval = _resampled(losses, lambda n: law_weights(np.arange(1, n + 1), size), level)
    return FittedLoss(size, value, interval)


def asymptote(losses: EnsembleLosses, *, level: float = 0.95) -> Asymptote | NotMeasured:
    """Where the loss of ever larger ensembles ends, with an interval over members and documents.

    Both are resampled: each member is left out in turn and the law fitted to the ensembles of the
    others, and the groups' shares in the fit give the rest of the variance. Student's t with the
    degrees of freedom of both (Satterthwaite), longer where groups are skewed, and withheld as any
    interval over groups is. NotMeasured with fewer than 3 members or 2 groups.
    """
    if losses.num_members < LEAST_MEMBERS:
        return NotMeasured(
            "ensemble_limit",
            f"{losses.num_members} members: the law L_inf + A / K and its interval need "
            f"{LEAST_MEMBERS} or more",
        )
    if losses.num_groups < 2:
        return NotMeasured("ensemble_limit", "1 group of documents: an interval needs 2 or more")
    limit = fitted_loss(losses, level=level)
    num = losses.num_members

    def last_step(most: int) -> np.ndarray:
        sizes = np.arange(1, most + 1)
        return law_weights(sizes, num) - law_weights(sizes, inf)

    remaining, interval = _resampled(losses, last_step, level, signed=True)
    miss = max(abs(losses.loss(size) - losses.fitted(size)) for size in range(1, num + 1))
    return Asymptote(
        limit,
        remaining * num,
        remaining,
        interval,
        miss,
        num,
        losses.num_groups,
        f"Holds for members trained like these {num} and documents like these "
        f"{losses.num_groups} groups, and only if the loss goes on falling as A / K: beyond {num} "
        "members that is not measured. Another split, recipe or learning rate is not in the "
        "interval.",
    )


def _resampled(
    losses: EnsembleLosses,
    weights_of: Callable[[int], np.ndarray],
    level: float,
    signed: bool = False,
) -> tuple[float, Interval]:
    """A weighted sum of the losses of all sizes, and its interval over members and groups.

    The variances over groups, given the members, and over members, given the groups, are added:
    both contain what the two do together, so that the sum is rather too large.
    """
    K, tokens = losses.num_members, losses.num_tokens_G.sum()

    def parts_G(without: int | None) -> np.ndarray:
        weights = weights_of(K - (without is not None))
        return sum(
            weight * losses.nats_G(size, without=without)
            for size, weight in enumerate(weights, start=1)
        )

    left_out = np.array([parts_G(member).sum() / tokens for member in range(K)])
    over_members = ((K - 1) / K * ((left_out - left_out.mean()) ** 2).sum()) ** 0.5
    found = ratio_with_further_error(
        parts_G(None),
        losses.num_tokens_G,
        range(losses.num_groups),
        (float(over_members), K - 1.0),
        signed=signed,
        level=level,
    )
    if not found.interval.is_withheld:
        return found.value, replace(found.interval, method=METHOD)
    return found.value, found.interval


def _subsets(num_members: int, most: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """All subsets size by size, or a balanced draw of those of one size."""
    for size in range(1, num_members + 1):
        if comb(num_members, size) <= max(most, num_members):
            yield from combinations(range(num_members), size)
            continue
        # Runs of a circle of all members: every member is in equally many.
        found: set[tuple[int, ...]] = set()
        for _ in range(2 * most // num_members + 1):
            circle = rng.permutation(num_members).tolist()
            runs = {
                tuple(sorted((circle + circle)[start : start + size]))
                for start in range(num_members)
            }
            if not found or (not runs & found and len(found) + num_members <= most):
                found |= runs
        yield from sorted(found)
