"""Intervals and tests that resample whole groups, because rows of one group are not independent."""

# G groups, R resamples

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from heldout.core.measurement import Contrast, Interval, Measurement

LEAST_HELD_OUT = 30  # groups in a held-out part; with fewer, no claim rests on it
NUM_RESAMPLES = 4000
LEAST_TO_RESAMPLE = 8  # groups; below, too few resamples differ, and Student's t is used


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio of sums with its interval and the two-sided p-value of it being ``null``."""

    value: float
    interval: Interval
    p_value: float
    num_groups: int

    def as_contrast(self) -> Contrast:
        return Contrast(self.value, self.interval, self.p_value)

    def as_measurement(
        self,
        name: str,
        unit: str,
        resampled_unit: str,
        contrasts: dict[str, Contrast],
        note: str = "",
    ) -> Measurement:
        return Measurement(
            name=name,
            value=self.value,
            unit=unit,
            num_units=self.num_groups,
            resampled_unit=resampled_unit,
            interval=self.interval,
            contrasts=contrasts,
            note=note,
        )


def group_sums(values: ArrayLike, groups: ArrayLike) -> np.ndarray:
    """Sum ``values`` within each group, in the order of the sorted group names."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(index, weights=np.asarray(values, dtype=np.float64))


def ratio_estimate(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: ArrayLike,
    *,
    level: float = 0.95,
    null: float = 0.0,
    seed: int = 0,
) -> RatioEstimate:
    """``sum(numerators) / sum(denominators)`` with a bootstrap-t interval over groups.

    For a mean negative log-likelihood: numerators in nats per document, denominators in tokens.
    For a paired difference: numerators are the documents' differences. The studentized bootstrap
    keeps its coverage with a few dozen groups, where the percentile interval is too narrow
    (Efron and Tibshirani 1993, chapter 12); the standard error is the linearized one of a ratio.

    Needs two groups; cost is 3 products of an (R, G) count matrix with a vector.
    """
    y_G = group_sums(numerators, groups)
    x_G = group_sums(denominators, groups)
    num_groups = len(y_G)
    if num_groups < 2:
        raise ValueError(f"An interval needs at least 2 groups, got {num_groups}.")
    if x_G.sum() <= 0:
        raise ValueError("The denominators of a ratio must have a positive sum.")

    value = y_G.sum() / x_G.sum()
    error = _standard_error(
        value, x_G.sum(), (y_G**2).sum(), (x_G * y_G).sum(), (x_G**2).sum(), num_groups
    )
    if error <= 1e-12 * max(1.0, abs(value)):
        same = Interval(value, value, level)
        return RatioEstimate(value, same, 1.0 if value == null else 0.0, num_groups)

    if num_groups < LEAST_TO_RESAMPLE:
        return _student_estimate(float(value), float(error), num_groups, level, null)
    rng = np.random.default_rng(seed)
    t_parts = []
    # In slices, so that memory does not grow with the number of groups.
    for num in _slices(NUM_RESAMPLES, max(1, 4_000_000 // num_groups)):
        counts_RG = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num)
        y_R, x_R = counts_RG @ y_G, counts_RG @ x_G
        keep = x_R > 0
        value_R = y_R[keep] / x_R[keep]
        error_R = _standard_error(
            value_R,
            x_R[keep],
            (counts_RG @ y_G**2)[keep],
            (counts_RG @ (x_G * y_G))[keep],
            (counts_RG @ x_G**2)[keep],
            num_groups,
        )
        steady = error_R > 1e-3 * error
        t_parts.append((value_R[steady] - value) / error_R[steady])
    t_R = np.concatenate(t_parts)
    tail = (1 - level) / 2
    low, high = np.quantile(t_R, [tail, 1 - tail])
    observed = (value - null) / error
    exceed = min((t_R >= observed).mean(), (t_R <= observed).mean())
    p_value = min(1.0, 2 * max(float(exceed), 1 / (len(t_R) + 1)))
    return RatioEstimate(
        float(value),
        Interval(float(value - high * error), float(value - low * error), level),
        p_value,
        num_groups,
    )


def _student_estimate(
    value: float, error: float, num_groups: int, level: float, null: float
) -> RatioEstimate:
    freedom = num_groups - 1
    reach = student_t_quantile((1 + level) / 2, freedom) * error
    return RatioEstimate(
        value,
        Interval(value - reach, value + reach, level, "Student t over groups"),
        student_t_p_value((value - null) / error, freedom),
        num_groups,
    )


def paired_difference(
    values: ArrayLike,
    control_values: ArrayLike,
    weights: ArrayLike,
    groups: ArrayLike,
    **options: Any,
) -> RatioEstimate:
    """Mean of ``values - control_values`` per unit of ``weights``, paired by position.

    ``options`` are those of ``ratio_estimate``.
    """
    difference = np.asarray(values, dtype=np.float64) - np.asarray(control_values, np.float64)
    return ratio_estimate(difference, weights, groups, **options)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (Holm 1979): family-wise error over all the given tests."""
    adjusted: dict[str, float] = {}
    running = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for rank, (name, p_value) in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p_value))
        adjusted[name] = running
    return adjusted


def _standard_error(ratio: Any, x_sum: Any, yy: Any, xy: Any, xx: Any, num_groups: int) -> Any:
    """Linearized error of a ratio of sums, from sums of squares: numbers, or arrays of them."""
    residual = np.maximum(yy - 2 * ratio * xy + ratio**2 * xx, 0.0)
    return np.sqrt(residual * num_groups / (num_groups - 1)) / x_sum


def _slices(total: int, size: int) -> Iterator[int]:
    while total > 0:
        yield min(total, size)
        total -= size


def difference_of_ratios(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], *, level: float = 0.95
) -> tuple[float, Interval]:
    """Ratio of ``first`` minus ratio of ``second``, two independent samples of groups.

    Each is ``(numerators, denominators, groups)``. Welch's t interval on the linearized errors.
    """
    parts = []
    for numerators, denominators, groups in (first, second):
        y_G, x_G = group_sums(numerators, groups), group_sums(denominators, groups)
        ratio = y_G.sum() / x_G.sum()
        error = _standard_error(
            ratio, x_G.sum(), (y_G**2).sum(), (x_G * y_G).sum(), (x_G**2).sum(), len(y_G)
        )
        parts.append((ratio, error**2, len(y_G)))
    (a, var_a, n_a), (b, var_b, n_b) = parts
    if min(n_a, n_b) < 2:
        raise ValueError(f"An interval needs at least 2 groups on both sides, got {n_a} and {n_b}.")
    variance = var_a + var_b
    if variance == 0:
        return float(a - b), Interval(float(a - b), float(a - b), level, "Welch t over groups")
    freedom = variance**2 / (var_a**2 / (n_a - 1) + var_b**2 / (n_b - 1))
    reach = student_t_quantile((1 + level) / 2, freedom) * np.sqrt(variance)
    return float(a - b), Interval(
        float(a - b - reach), float(a - b + reach), level, "Welch t over groups"
    )


def student_t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t at any positive, also fractional, number of degrees of freedom."""
    from scipy.special import stdtrit  # late: --help imports no scipy

    return float(stdtrit(freedom, probability))


def student_t_p_value(distance: float, freedom: float) -> float:
    """Two-sided: how often Student's t lies ``distance`` standard errors or more from 0."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(distance)))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def normal_p_value(distance: float) -> float:
    """Two-sided: how often a standard normal lies ``distance`` or more from 0."""
    from scipy.special import ndtr

    return float(2 * ndtr(-abs(distance)))


def share_estimate(
    values: ArrayLike, groups: ArrayLike, *, level: float = 0.95
) -> tuple[float, Interval]:
    """A share of rows with its Wilson interval, counting groups, not rows, as the sample size.

    Stays honest at 0 and 1, where a bootstrap has no width (Wilson 1927; Newcombe 1998). Taking
    the groups as the sample size is conservative unless rows of a group always agree.
    """
    share = float(np.mean(np.asarray(values, dtype=np.float64)))
    num_groups = len(np.unique(np.asarray(groups)))
    z = normal_quantile((1 + level) / 2)
    center = (share + z**2 / (2 * num_groups)) / (1 + z**2 / num_groups)
    variance = share * (1 - share) / num_groups + z**2 / (4 * num_groups**2)
    reach = z * variance**0.5 / (1 + z**2 / num_groups)
    low, high = max(0.0, center - reach), min(1.0, center + reach)
    return share, Interval(min(low, share), max(high, share), level, "Wilson over groups")


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Exact interval of a share of independent trials (Clopper and Pearson 1934).

    Never too narrow: 0 of 59 ends at .061, and at .05 with level .9.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"A share needs trials, and successes among them: {successes}/{trials}.")
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        low = float(betaincinv(successes, trials - successes + 1, tail))
    if successes < trials:
        high = float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(low, high, level, "Clopper-Pearson")


def difference_of_estimates(
    first: tuple[float, Interval], second: tuple[float, Interval]
) -> Contrast:
    """Difference of two independent estimates, each ``(value, interval)``, from their intervals.

    The method of variance estimates recovery (Zou and Donner 2008), which turns Wilson intervals
    into Newcombe's; intervals may be one-sided. The p-value comes from the nearer end.
    """
    (a, interval_a), (b, interval_b) = first, second
    difference = a - b
    below = ((a - interval_a.low) ** 2 + (interval_b.high - b) ** 2) ** 0.5
    above = ((interval_a.high - a) ** 2 + (b - interval_b.low) ** 2) ** 0.5
    z = normal_quantile((1 + interval_a.level) / 2)
    toward_zero = below if difference > 0 else above
    p_value = 1.0
    if difference and toward_zero:
        p_value = normal_p_value(z * difference / toward_zero)
    return Contrast(
        difference,
        Interval(
            difference - below, difference + above, interval_a.level, "recovered from two intervals"
        ),
        p_value,
    )


def student_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: ArrayLike,
    *,
    level: float = 0.95,
    null: float = 0.0,
) -> RatioEstimate:
    """``sum(numerators) / sum(denominators)`` with Student's t interval over groups.

    For bounded figures that most groups share and a few do not, such as the length of a copied
    fragment: resamples without the few have next to no spread, so that bootstrap-t intervals
    become many times as wide as the range of the figure. Symmetric: it needs some twenty groups.
    """
    y_G, x_G = group_sums(numerators, groups), group_sums(denominators, groups)
    num_groups = len(y_G)
    if num_groups < 2:
        raise ValueError(f"An interval needs at least 2 groups, got {num_groups}.")
    if x_G.sum() <= 0:
        raise ValueError("The denominators of a ratio must have a positive sum.")
    value = float(y_G.sum() / x_G.sum())
    error = _standard_error(
        value, x_G.sum(), (y_G**2).sum(), (x_G * y_G).sum(), (x_G**2).sum(), num_groups
    )
    if error <= 1e-12 * max(1.0, abs(value)):
        same = Interval(value, value, level, "Student t over groups")
        return RatioEstimate(value, same, 1.0 if value == null else 0.0, num_groups)
    return _student_estimate(value, float(error), num_groups, level, null)


def jackknife_values(
    statistic: Callable[[np.ndarray], float], groups: ArrayLike, most_blocks: int = 30
) -> np.ndarray:
    """Pseudo-values of a statistic of the whole sample: their mean is it, their spread its own.

    ``statistic(keep)`` gets a mask of rows. Groups are left out one at a time, or in at most
    ``most_blocks`` blocks of groups: one recomputation each. For what is no mean of rows, such as a
    mean over pairs (Efron and Tibshirani 1993, chapter 11). Two statistics of the same rows have
    paired pseudo-values. The resampled unit is the block.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    num_blocks = min(most_blocks, len(names))
    block = (np.arange(len(names)) % num_blocks)[index]
    whole = statistic(np.ones(len(block), dtype=bool))
    without = np.array([statistic(block != number) for number in range(num_blocks)])
    return whole + (num_blocks - 1) * (without.mean() - without)


def difference_of_paired_ratios(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    groups: ArrayLike,
    *,
    level: float = 0.95,
    null: float = 0.0,
) -> RatioEstimate:
    """Ratio of sums of ``first`` minus that of ``second``, both of the same rows.

    Each is ``(numerators, denominators)``. Student's t interval on each group's linearized part in
    the difference.
    """
    value, parts_G = 0.0, 0.0
    for sign, (numerators, denominators) in ((1, first), (-1, second)):
        y_G, x_G = group_sums(numerators, groups), group_sums(denominators, groups)
        if x_G.sum() <= 0:
            raise ValueError("The denominators of a ratio must have a positive sum.")
        ratio = y_G.sum() / x_G.sum()
        value += sign * ratio
        parts_G = parts_G + sign * len(y_G) * (y_G - ratio * x_G) / x_G.sum()
    values_G = value + np.asarray(parts_G)
    names_G = np.arange(len(values_G))
    return student_ratio(values_G, np.ones(len(values_G)), names_G, level=level, null=null)
