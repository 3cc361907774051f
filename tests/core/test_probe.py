"""Evidence is kept by its class and key, and read by name where probes of others do."""

import numpy as np

from heldout.core.harness import HarnessScores
from heldout.core.landscape import LossLandscape
from heldout.core.pass_statistics import CanaryLosses, PersonalData
from heldout.core.probe import Evidence


def test_what_is_added_is_found_by_class_and_key():
    empty = Evidence({})
    scores = HarnessScores("acc", np.ones(2), np.array(["0", "1"]))
    evidence = empty.adding(scores, "best", "sums").adding(LossLandscape())
    assert evidence.get(HarnessScores, "best", "sums") is scores
    assert evidence.get(HarnessScores, "base", "sums") is None
    assert evidence.every(HarnessScores) == {("best", "sums"): scores}
    assert evidence.get(LossLandscape) == LossLandscape()
    assert empty.get(LossLandscape) is None, "the first is as it was"


def test_names_that_probes_of_other_packages_read():
    canaries = CanaryLosses(np.ones(1), np.ones(1), np.ones((1, 2)))
    evidence = Evidence({}).adding(canaries, "best").adding(PersonalData({}), "train")
    assert evidence.canaries == {"best": canaries}
    assert evidence.personal_data == {"train": PersonalData({})}
    assert evidence.prompt_pairs == evidence.tasks == {}
    assert evidence.corpora is None
    assert evidence.landscape is None
