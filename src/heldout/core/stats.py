"""Intervals and tests over whole groups, because rows of one group are not independent.

One design for all: a standard error over groups that is unbiased where groups are few or unequal,
Student's t at the degrees of freedom of that error, and a longer reach on the side to which the
groups are skewed. Where that cannot cover, the interval is withheld: ``Interval.is_withheld``.
docs/decisions/012-intervals.md has the reasons, benchmarks/coverage.py the coverage.
"""

# G groups

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from heldout.core.distributions import (
    student_t_p_value,
    student_t_quantile,
)
from heldout.core.measurement import Contrast, Interval, Measurement

LEAST_HELD_OUT = 30  # groups in a held-out part; with fewer, no claim rests on it
# Where no row is recited, so many groups of test and training rule out that a tenth of them is.
ENOUGH_TEST, ENOUGH_TRAIN = 40, 70
LEAST_TO_RESAMPLE = 8  # groups; with fewer, no interval is given
LEAST_FREEDOM = 3.2  # degrees of freedom; fewer where one group holds nearly half of the weight
LOG_SKEW = 4.7  # the reach away from 0 grows by so many standard errors of the mean logarithm
LEAST_LOG_SPREAD = 0.5  # below, logarithms are as good as normal and the growth fades
SAMPLE_SKEW = 0.7  # the reach to the skewed side grows by so much of skewness over sqrt(groups)
MOST_SKEW = 2.05  # growth of a reach; beyond, the interval of a positive figure is withheld
OVER_GROUPS = "Student t over groups, longer where they are skewed"


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
    signed: bool = False,
) -> RatioEstimate:
    """``sum(numerators) / sum(denominators)`` with its interval over groups.

    For a mean negative log-likelihood: numerators in nats per document, denominators in tokens.
    ``signed``: the figure could as well be negative, as a difference can, so that its sign is in
    question; otherwise figures that are all positive get a positive interval.

    ValueError with fewer than two groups. With fewer than ``LEAST_TO_RESAMPLE``, or where one
    holds nearly half of the denominators, the interval is withheld and the p-value is 1.
    """
    return _estimate(_spread_of_ratio(numerators, denominators, groups, signed), level, null)


def ratio_with_further_error(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: ArrayLike,
    further: tuple[float, float],
    *,
    signed: bool = False,
    level: float = 0.95,
) -> RatioEstimate:
    """``ratio_estimate`` of a figure that also varies with something else than the groups.

    ``further`` is the standard error that this adds, and its degrees of freedom. Reaches are
    squared and added.
    """
    spread = _spread_of_ratio(numerators, denominators, groups, signed)
    error, freedom = further
    other = _Spread(0.0, error, freedom, 1.0, 1.0, 0)
    return _combined([spread, other], (1.0, 1.0), level)


def effective_groups(groups: ArrayLike) -> float:
    """Groups counted by their size (Kish 1965); 0 where they are too few for an interval."""
    sizes_G = group_sums(np.ones(len(np.asarray(groups))), groups)
    weights_G = sizes_G / sizes_G.sum()
    if not is_enough(len(sizes_G), error_over_groups(weights_G, weights_G)[1]):
        return 0.0
    return 1 / float((weights_G**2).sum())


@dataclass(frozen=True)
class _Spread:
    """How far an estimate may lie from the truth: ``below`` and ``above`` stretch its error."""

    value: float
    error: float
    freedom: float
    below: float
    above: float
    num_groups: int
    is_positive: bool = False
    can_cover: bool = True

    @classmethod
    def over(
        cls,
        value: float,
        parts_G: np.ndarray,
        weights_G: np.ndarray,
        log_spread: float = 0.0,
        sign: int = 0,
        is_positive: bool = False,
    ) -> Self:
        """From what each group adds to the estimate's error, and its weight in the estimate.

        ``log_spread`` is the standard deviation of the groups' logarithms where all have the
        ``sign``, else 0.
        """
        error, freedom = error_over_groups(parts_G, weights_G)
        root = float(np.sqrt((weights_G**2).sum()))
        skewness = SAMPLE_SKEW * root * _skewness(parts_G)
        growth = {side: max(0.0, side * skewness) for side in (-1, 1)}
        if sign:  # few groups hide their skewness; the spread of their logarithms tells it
            fade = min(1.0, log_spread / LEAST_LOG_SPREAD)
            growth[sign] = LOG_SKEW * root * log_spread * fade
        most = max(growth.values())
        return cls(
            float(value),
            0.0 if error <= 1e-12 * max(1.0, abs(value)) else error,
            freedom,
            1 + min(growth[-1], MOST_SKEW),
            1 + min(growth[1], MOST_SKEW),
            len(parts_G),
            is_positive,
            is_enough(len(parts_G), freedom) and not (is_positive and most > MOST_SKEW),
        )

    def reach(self, distance: float) -> tuple[float, float]:
        """How far below and above the value an interval of so many standard errors ends."""
        below = distance * self.error * self.below
        if self.is_positive:  # on the scale of logarithms, so that it ends above 0
            below = self.value * -float(np.expm1(-below / self.value))
        return below, distance * self.error * self.above

    def distance(self, null: float) -> float:
        """The number of standard errors at which the interval just touches ``null``."""
        gap = self.value - null
        if gap < 0:
            return -gap / self.error / self.above
        if self.is_positive and null > 0:
            gap = self.value * float(np.log(self.value / null))
        return gap / self.error / self.below


def _spread_of_ratio(
    numerators: ArrayLike, denominators: ArrayLike, groups: ArrayLike, signed: bool = False
) -> _Spread:
    y_G, x_G = group_sums(numerators, groups), group_sums(denominators, groups)
    if len(y_G) < 2:
        raise ValueError(f"An interval needs at least 2 groups, got {len(y_G)}.")
    total = x_G.sum()
    if total <= 0:
        raise ValueError("The denominators of a ratio must have a positive sum.")
    if not y_G.any():
        # A difference that is nowhere any is none, however few groups there are.
        can_cover = signed or len(y_G) >= LEAST_TO_RESAMPLE
        return _Spread(0.0, 0.0, len(y_G) - 1.0, 1.0, 1.0, len(y_G), can_cover=can_cover)
    value = y_G.sum() / total
    sign, log_spread = 0, 0.0
    if value and (x_G >= 0).all() and (y_G * np.sign(value) >= 0).all():
        sign = int(np.sign(value))
        # Not below a tenth: a group near zero says nothing of the skewness away from it.
        ratios = (y_G[x_G > 0] / x_G[x_G > 0]) / value
        log_spread = float(np.log(np.maximum(ratios, 0.1)).std(ddof=1)) if len(ratios) > 1 else 0.0
    is_positive = sign == 1 and not signed
    return _Spread.over(
        value, (y_G - value * x_G) / total, x_G / total, log_spread, sign, is_positive
    )


def error_over_groups(parts_G: np.ndarray, weights_G: np.ndarray) -> tuple[float, float]:
    """Standard error of the sum of ``parts_G``, which sum to 0, and its degrees of freedom.

    Unbiased if groups vary alike whatever their weight; degrees of freedom by Satterthwaite (Bell
    and McCaffrey 2002; Imbens and Kolesar 2016). With equal weights both are Student's.
    """
    second, third, fourth = ((weights_G**power).sum() for power in (2, 3, 4))
    # Of A = (I - 1w')' diag(w^2) (I - 1w'), whose quadratic form is the sum of squared parts.
    trace = second + second**2 - 2 * third
    if trace <= 1e-12 * second:  # all weight is one group's
        return 0.0, 0.0
    trace_of_square = (
        (weights_G**4 * (1 + 2 * second - 4 * weights_G)).sum()
        + second**4
        + 2 * second * fourth
        + 2 * third**2
        - 4 * second**2 * third
    )
    error = np.sqrt((parts_G**2).sum() * second / trace)
    return float(error), float(trace**2 / trace_of_square)


def is_enough(num_groups: int, freedom: float) -> bool:
    return num_groups >= LEAST_TO_RESAMPLE and freedom >= LEAST_FREEDOM


def _skewness(parts_G: np.ndarray) -> float:
    """Of a sample with mean 0, without bias for normal ones; 0 where there is no spread."""
    num, variance = len(parts_G), (parts_G**2).mean()
    if num < 3 or variance <= 1e-24:
        return 0.0
    return float((parts_G**3).mean() / variance**1.5 * np.sqrt(num * (num - 1)) / (num - 2))


def _estimate(spread: _Spread, level: float, null: float) -> RatioEstimate:
    value, num_groups = spread.value, spread.num_groups
    if not spread.can_cover:
        return RatioEstimate(value, Interval.withheld(level), 1.0, num_groups)
    if spread.error == 0:
        same = Interval(value, value, level, OVER_GROUPS)
        return RatioEstimate(value, same, 1.0 if value == null else 0.0, num_groups)
    below, above = spread.reach(student_t_quantile((1 + level) / 2, spread.freedom))
    p_value = student_t_p_value(spread.distance(null), spread.freedom)
    interval = Interval(value - below, value + above, level, OVER_GROUPS)
    return RatioEstimate(value, interval, p_value, num_groups)


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
    return ratio_estimate(difference, weights, groups, signed=True, **options)


def difference_of_ratios(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], *, level: float = 0.95
) -> tuple[float, Interval]:
    """Ratio of ``first`` minus ratio of ``second``, two independent samples of groups.

    Each is ``(numerators, denominators, groups)``. Both reaches at Welch's degrees of freedom,
    squared and added. Withheld where one side's would be.
    """
    sides = [_spread_of_ratio(y, x, groups) for y, x, groups in (first, second)]
    found = _combined(sides, (1.0, -1.0), level)
    return found.value, found.interval


def mean_of_ratios(
    samples: Sequence[Sequence[ArrayLike]], *, level: float = 0.95, signed: bool = False
) -> RatioEstimate:
    """Mean of the ratios of independent samples, each ``(numerators, denominators, groups)``.

    The interval is made as that of ``difference_of_ratios``, the p-value that of a mean of 0.
    """
    spreads = [_spread_of_ratio(y, x, groups, signed) for y, x, groups in samples]
    return _combined(spreads, [1 / len(spreads)] * len(spreads), level)


def _combined(spreads: Sequence[_Spread], factors: Sequence[float], level: float) -> RatioEstimate:
    """A weighted sum of independent estimates: their reaches, squared, add up (Zou and Donner)."""
    value = sum(factor * each.value for factor, each in zip(factors, spreads, strict=True))
    num_groups = sum(each.num_groups for each in spreads)
    if not all(each.can_cover for each in spreads):
        return RatioEstimate(value, Interval.withheld(level), 1.0, num_groups)
    parts = [(f * each.error) ** 2 for f, each in zip(factors, spreads, strict=True)]
    if not sum(parts):
        same = Interval(value, value, level, OVER_GROUPS)
        return RatioEstimate(value, same, 1.0 if value == 0 else 0.0, num_groups)
    freedom = sum(parts) ** 2 / sum(
        part**2 / each.freedom for part, each in zip(parts, spreads, strict=True)
    )
    distance = student_t_quantile((1 + level) / 2, freedom)
    below = above = 0.0
    for factor, each in zip(factors, spreads, strict=True):
        ends = each.reach(distance) if factor > 0 else each.reach(distance)[::-1]
        below, above = np.hypot((below, above), factor * np.array(ends)).tolist()
    toward_zero = below if value > 0 else above
    p_value = student_t_p_value(distance * value / toward_zero, freedom) if value else 1.0
    interval = Interval(value - below, value + above, level, OVER_GROUPS)
    return RatioEstimate(value, interval, p_value, num_groups)


def difference_of_paired_ratios(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    groups: ArrayLike,
    *,
    level: float = 0.95,
    null: float = 0.0,
) -> RatioEstimate:
    """Ratio of sums of ``first`` minus that of ``second``, both of the same rows.

    Each is ``(numerators, denominators)``. The interval is over each group's linearized part in
    the difference; its weight is the mean of its two weights.
    """
    value, parts_G, weights_G = 0.0, 0.0, 0.0
    for sign, (numerators, denominators) in ((1, first), (-1, second)):
        y_G, x_G = group_sums(numerators, groups), group_sums(denominators, groups)
        if x_G.sum() <= 0:
            raise ValueError("The denominators of a ratio must have a positive sum.")
        ratio = y_G.sum() / x_G.sum()
        value += sign * ratio
        parts_G = parts_G + sign * (y_G - ratio * x_G) / x_G.sum()
        weights_G = weights_G + x_G / x_G.sum() / 2
    if np.size(parts_G) < 2:
        raise ValueError(f"An interval needs at least 2 groups, got {np.size(parts_G)}.")
    spread = _Spread.over(value, np.asarray(parts_G), np.asarray(weights_G))
    return _estimate(spread, level, null)
