"""Intervals of shares over whole groups, within [0, 1], and of their differences, within [-1, 1].

docs/decisions/012-intervals.md has the reasons, benchmarks/coverage.py the coverage.
"""

# G groups, D rows

import numpy as np
from numpy.typing import ArrayLike

from heldout.core.distributions import (
    exact_bounds,
    normal_p_value,
    normal_quantile,
    student_t_quantile,
)
from heldout.core.measurement import Contrast, Interval
from heldout.core.stats import error_over_groups, group_sums, is_enough

SHARE_EASE = 0.1  # of one row a group: 0 is Clopper and Pearson's interval, 0.5 Jeffreys'
OF_SHARES = "difference of shares, recovered from two intervals"


def share_estimate(
    values: ArrayLike, groups: ArrayLike, *, level: float = 0.95
) -> tuple[float, Interval]:
    """A share of rows, or a mean of values in [0, 1], with its interval over groups in [0, 1].

    Clopper and Pearson's interval, eased a little, at the number of independent rows that would
    have the standard error over groups, less for its degrees of freedom (Korn and Graubard 1998).
    No fewer than the groups, counted by their size (Kish 1965): all that is known at 0 and 1.
    """
    values_D = np.asarray(values, dtype=np.float64)
    share, num_rows = float(values_D.mean()), len(values_D)
    sizes_G = group_sums(np.ones(num_rows), groups)
    if len(sizes_G) < 2:
        return share, Interval.withheld(level)
    parts_G = (group_sums(values_D, groups) - share * sizes_G) / num_rows
    error, freedom = error_over_groups(parts_G, sizes_G / num_rows)
    if not is_enough(len(sizes_G), freedom):
        return share, Interval.withheld(level)
    num, ease = num_rows**2 / float((sizes_G**2).sum()), SHARE_EASE
    if 0 < share < 1 and num_rows > len(sizes_G):
        tail, ease = (1 + level) / 2, 0.0  # the number is estimated, too
        penalty = student_t_quantile(tail, num_rows - 1) / student_t_quantile(tail, freedom)
        num = max(num, penalty**2 * min(num_rows, share * (1 - share) / max(error**2, 1e-300)))
    low, high = exact_bounds(share * num, num, level, ease)
    return share, Interval(min(low, share), max(high, share), level, "exact, over groups")


def difference_of_shares(first: tuple[float, Interval], second: tuple[float, Interval]) -> Contrast:
    """Difference of two independent shares, or of two such differences, within [-1, 1].

    Each is ``(value, interval)``. The method of variance estimates recovery (Zou and Donner 2008);
    intervals may be one-sided. The p-value comes from the end nearer to 0. Withheld where one of
    the two intervals is.
    """
    (a, interval_a), (b, interval_b) = first, second
    difference, level = max(-1.0, min(1.0, a - b)), interval_a.level
    if interval_a.is_withheld or interval_b.is_withheld:
        return Contrast(difference, Interval.withheld(level), 1.0)
    below = float(np.hypot(a - interval_a.low, interval_b.high - b))
    above = float(np.hypot(interval_a.high - a, b - interval_b.low))
    toward_zero = below if difference > 0 else above
    p_value = 1.0
    if difference and toward_zero:
        p_value = normal_p_value(normal_quantile((1 + level) / 2) * difference / toward_zero)
    ends = Interval(difference - below, difference + above, level, OF_SHARES).within(-1.0, 1.0)
    return Contrast(difference, ends, p_value)
