"""When a trial of a learning rate has surely lost."""

import numpy as np
import pytest

from heldout.core.losses import DocumentLosses
from heldout.search.lost_trials import BEND, further_fall, has_lost

NUM = 40
LEVELS = np.random.default_rng(0).normal(3, 0.5, NUM)


def losses(fall, noise=0.0, num=NUM):
    """Documents of different levels, all lower by ``fall``."""
    shaken = noise * np.random.default_rng(1).normal(size=num)
    ones = np.full(num, 10)
    return DocumentLosses(10 * (LEVELS[:num] - fall + shaken), ones, ones, np.arange(num))


def test_a_trial_has_lost_that_ends_above_the_best_at_its_pace():
    base = losses(0)
    assert has_lost(base, losses(0.2), losses(0.5), more=1.0)
    assert not has_lost(base, losses(0.3), losses(0.5), more=1.0)
    assert not has_lost(base, losses(0.5), losses(0.4), more=0.0)


def test_not_where_documents_disagree_or_are_few():
    base = losses(0)
    assert not has_lost(base, losses(0.2, noise=1), losses(0.5), more=1.0)
    few = [losses(fall, num=5) for fall in (0, 0.1, 0.9)]
    assert not has_lost(*few, more=0.0)


def test_a_rise_is_no_pace():
    """A trial above the base is above it at its end, and above a best trial below the base."""
    assert has_lost(losses(0), losses(-0.3), losses(0.1), more=0.7)


def test_the_further_fall_counts_rates_and_not_steps():
    assert further_fall(4, 20, 5) is None
    assert further_fall(10, 20, 0) == pytest.approx(2**BEND - 1)
    # Over the 4 steps of warm-up the rates sum to 2.
    assert further_fall(8, 20, 4) == pytest.approx(3**BEND - 1)
    assert further_fall(20, 20, 4) == 0
