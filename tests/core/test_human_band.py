"""Known answers of the distance to the range of human text."""

import numpy as np
import pytest

from heldout.core.human_band import HumanBand

HUMAN = {"ttr": np.linspace(0.6, 0.8, 101), "compression": np.linspace(1.5, 1.9, 101)}


@pytest.fixture
def band():
    return HumanBand.of(HUMAN, np.linspace(0, 0.02, 101))


def test_the_band_is_the_middle_of_human_texts(band):
    assert band.lows["ttr"] == pytest.approx(0.61)
    assert band.highs["ttr"] == pytest.approx(0.79)
    assert band.most_repetition == pytest.approx(0.019)


def test_distance_is_zero_inside_and_counts_half_widths_on_both_sides(band):
    measures = {"ttr": np.array([0.7, 0.79, 0.52, 0.88]), "compression": np.full(4, 1.7)}
    # Half of .18 is one half width; the mean of two measures, one of which is inside.
    assert band.distance(measures) == pytest.approx([0, 0, 0.5, 0.5])


def test_too_flat_and_too_wild_count_alike(band):
    flat = band.distance({"ttr": [0.51], "compression": [2.0]})
    wild = band.distance({"ttr": [0.89], "compression": [1.4]})
    assert flat == pytest.approx(wild)
    assert flat > 0


def test_repetition_fails_a_text_that_is_inside_on_all_measures(band):
    inside = {"ttr": np.array([0.7, 0.7, 0.2]), "compression": np.array([1.7, 1.7, 1.7])}
    assert band.inside(inside, np.array([0.0, 0.3, 0.0])).tolist() == [True, False, False]
    assert band.passes(np.array([0.1]), allowed=0.15).tolist() == [True]


def test_most_human_texts_are_within_their_own_band(band):
    share = (band.distance(HUMAN) == 0).mean()
    assert 0.85 < share < 0.95
