"""A rise is told from jitter by the course of the losses alone."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from heldout.diagnosis import jitter
from heldout.diagnosis.jitter import largest_jump, rise_beyond_jitter


def share_named(curve, sigma, num=400, training=()):
    rng = np.random.default_rng(7)
    noisy = curve + rng.normal(0, sigma, (num, len(curve)))
    return np.mean([rise_beyond_jitter(one, training) > 0 for one in noisy])


@pytest.mark.parametrize("num", [8, 10, 13, 20, 40])
@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1])
def test_jitter_around_a_level_is_no_rise(num, sigma):
    assert share_named(np.full(num, 2.0), sigma) <= 0.05  # 2 of 100 asked for, 400 draws


def test_the_size_of_the_jitter_does_not_matter_but_the_smallest_rise_does():
    course = [2.5, 2.2, 2.0, 2.05, 2.1, 2.15, 2.2, 2.25, 2.3, 2.35]
    assert rise_beyond_jitter(course) == pytest.approx(0.35)
    assert rise_beyond_jitter([loss / 20 for loss in course]) == 0


@pytest.mark.parametrize(("num", "least"), [(10, 0.65), (20, 0.93), (40, 0.99)])
def test_a_rise_of_five_times_the_jitter_is_named(num, least):
    half = np.linspace(0, 1, num)
    curve = np.where(half < 0.5, 2.5 - half, 2 + 0.1 * (half - 0.5) / 0.5)
    assert share_named(curve, 0.02) >= least


def test_a_loss_that_falls_or_levels_off_has_not_risen():
    for num in (10, 20, 40):
        place = np.linspace(0, 1, num)
        assert share_named(2 + np.exp(-5 * place), 0.02) <= 0.05
        assert share_named(2 + np.exp(-12 * place), 0.02) <= 0.05
        assert share_named(3 - place, 0.02) <= 0.01


def test_few_evaluations_tell_by_size_against_the_jitter_of_training_losses():
    smooth = [3.0 - 0.1 * i for i in range(12)]
    rough = [loss + 0.8 * (-1) ** i for i, loss in enumerate(smooth)]
    assert rise_beyond_jitter([2.0, 2.3, 2.6], smooth) == pytest.approx(0.6)
    assert rise_beyond_jitter([2.0, 2.3, 2.6], rough) == 0
    assert rise_beyond_jitter([2.0, 2.3, 2.6], smooth[:3]) == 0  # no yardstick
    assert rise_beyond_jitter([2.0, 2.05], smooth) == 0
    assert rise_beyond_jitter([2.0], smooth) == 0
    assert largest_jump(smooth) == pytest.approx(0.0, abs=1e-12)
    assert largest_jump(rough) == pytest.approx(1.6)


@pytest.mark.parametrize("num", [2, 3, 7, 12, 25])
def test_the_fits_are_those_of_isotonic_regression(num):
    course = np.random.default_rng(num).normal(0, 1, num)
    places = np.arange(num)
    falling, rising = IsotonicRegression(increasing=False), IsotonicRegression()

    def left(model, part):
        return float(((model.fit_transform(places[: len(part)], part) - part) ** 2).sum())

    best = min(range(1, num), key=lambda k: left(falling, course[:k]) + left(rising, course[k:]))
    squares = left(falling, course[:best]) + left(rising, course[best:])
    gain, rest, risen = jitter._two_curves(course)
    assert rest == pytest.approx(squares, abs=1e-9)
    assert gain == pytest.approx(left(falling, course) - squares, abs=1e-9)
    before = falling.fit_transform(places[:best], course[:best])
    after = rising.fit_transform(places[: num - best], course[best:])
    assert risen == pytest.approx(after[-1] - min(before[-1], after[0]))
