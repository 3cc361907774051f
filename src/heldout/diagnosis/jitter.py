"""Whether a held-out loss has risen, by the log alone: more than it jitters from step to step.

A log has no documents to take an error from. What it has is its own course: losses that fall and
then rise are fitted far better by a decreasing curve and an increasing one after it than by a
decreasing one alone, and how much better is compared with what jitter around a level gives.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_EVALUATIONS = 8  # with fewer, two monotone curves fit nearly any course
LEAST_RISE = 0.03  # nats/token: smaller is not worth naming
# Of few evaluations size alone tells: a held-out loss seldom jitters by a tenth of a nat, or by
# half as much again as the largest jump of a training loss.
LARGE_RISE = 0.1
JUMPS = 1.5
# The variance of the jitter: what the two curves leave, and a fifth of what second differences
# show, since curves follow a steep fall exactly and leave nothing of its jitter.
CURVATURE_SHARE = 0.2
# Number of evaluations -> what the squares that the rise explains, over that variance, exceed in 2
# of 100 courses that do not rise: normal jitter around a level and around falls that level off,
# the worst of them (6,000 draws each, 2,500 from 30 on).
CRITICAL = {8: 92.0, 9: 70.0, 10: 70.0, 12: 52.0, 20: 50.0, 30: 45.0, 40: 37.0}


def rise_beyond_jitter(losses: Sequence[float], training: Sequence[float] = ()) -> float:
    """By how much the last loss surely lies above the lowest before it, nats/token; 0 if unsure.

    losses: held-out losses in the order of their steps. training: logged training losses; with
    fewer than 8 evaluations their jitter is what tells, so without them such a log cannot tell.

    Isotonic regression (Barlow 1972): a decreasing fit against a decreasing and then increasing
    one, each by pooling adjacent violators. Cost: quadratic in the number of evaluations at worst.
    """
    course = np.asarray(losses, dtype=float)
    if len(course) < 2:
        return 0.0
    if len(course) < LEAST_EVALUATIONS:
        risen = float(course[-1] - course.min())
        is_told = len(training) >= LEAST_EVALUATIONS and risen > large_rise(training)
        return risen if is_told else 0.0
    gain, left, risen = _two_curves(course)
    variance = left / len(course) + CURVATURE_SHARE * _second_differences(course)
    if risen < LEAST_RISE or gain <= _critical(len(course)) * variance:
        return 0.0
    return risen


def large_rise(training: Sequence[float]) -> float:
    """What a rise must exceed to be told by its size alone, nats/token."""
    return max(LARGE_RISE, JUMPS * largest_jump(training))


def largest_jump(losses: Sequence[float]) -> float:
    """How far a loss lies from the mean of its neighbors at most: the largest jitter seen."""
    course = np.asarray(losses, dtype=float)
    inner = course[1:-1] - (course[:-2] + course[2:]) / 2
    return float(np.abs(inner).max()) if len(inner) else 0.0


def _second_differences(course: np.ndarray) -> float:
    """Variance of jitter about a straight line through neighbors, of the calmest three quarters."""
    squares = np.sort((course[:-2] - 2 * course[1:-1] + course[2:]) ** 2)
    return float(squares[: math.ceil(0.75 * len(squares))].mean()) / 6


def _critical(num: int) -> float:
    """Between two sizes on the line between their logarithms; beyond the last, its value."""
    sizes = list(CRITICAL)
    logs = np.interp(np.log(num), np.log(sizes), np.log(list(CRITICAL.values())))
    return float(np.exp(logs))


def _two_curves(course: np.ndarray) -> tuple[float, float, float]:
    """Squares that the rise explains, squares left, and the fitted end over the fitted low."""
    falling = _decreasing(course)
    rising = _decreasing(course[::-1])  # read from the end, what rises falls
    num = len(course)
    first = min(range(1, num), key=lambda k: falling[k].squares + rising[num - k].squares)
    before, after = falling[first], rising[num - first]
    left = before.squares + after.squares
    return falling[num].squares - left, left, after.start - min(before.end, after.end)


class _Fit(NamedTuple):
    """The best decreasing curve through the first losses: squares left, first and last value."""

    squares: float
    start: float
    end: float


def _decreasing(course: np.ndarray) -> list[_Fit]:
    """The fits of all prefixes, from none of the losses to all."""
    fits = [_Fit(0.0, math.nan, math.nan)]
    blocks: list[tuple[float, int, float]] = []  # mean, size, squares within
    for value in course:
        blocks.append((float(value), 1, 0.0))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (mean, size, within), (mean2, size2, within2) = blocks[-2:]
            whole = size + size2
            between = (mean2 - mean) ** 2 * size * size2 / whole
            merged = (mean * size + mean2 * size2) / whole
            blocks[-2:] = [(merged, whole, within + within2 + between)]
        squares = sum(within for _, _, within in blocks)
        fits.append(_Fit(squares, blocks[0][0], blocks[-1][0]))
    return fits
