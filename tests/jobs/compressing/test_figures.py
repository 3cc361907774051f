"""How code lengths read in words."""

import numpy as np

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.stats import paired_difference, ratio_estimate
from heldout.jobs.compressing.figures import _in_words


def headline(saved, saved_when_shuffled):
    """Of 40 documents of one byte each; bits saved by training, and with words shuffled."""
    ones, groups = np.ones(40), np.arange(40)
    level = ratio_estimate(saved, ones, groups, signed=True)
    contrast = paired_difference(saved, saved_when_shuffled, ones, groups).as_contrast()
    found = {
        name: Measurement(name, value, "bits per byte", 40, "document")
        for name, value in (("prequential", 2.0), ("xz", 3.0), ("uniform", 8.0))
    }
    found["structure"] = Measurement(
        "structure",
        level.value,
        "bits per byte",
        40,
        "document",
        level.interval,
        {"shuffled": contrast},
    )
    return _in_words({**found, "rote": NotMeasured("rote", "too few")}, "uniform")


def test_what_shuffled_words_save_too_is_not_what_documents_share():
    rng = np.random.default_rng(0)
    saved = rng.normal(6.024, 0.05, 40)  # random characters: all is in how common each is
    said = headline(saved, saved + rng.normal(0, 0.02, 40))
    assert "What documents share" not in said
    assert "with the words of each document shuffled 6.0" in said
    assert "nothing else that documents share is told" in said


def test_structure_is_told_beside_its_control():
    rng = np.random.default_rng(0)
    said = headline(rng.normal(1.5, 0.05, 40), rng.normal(0.9, 0.05, 40))
    assert "What documents share saves 1.49" in said
    assert "with the words of each shuffled 0.9" in said


def test_too_few_documents_tell_nothing():
    ones = np.ones(4)
    level = ratio_estimate(ones * 3 + np.arange(4), ones, np.arange(4), signed=True)
    assert level.interval.is_withheld
    assert level.interval.words() == "too few groups for an interval"
