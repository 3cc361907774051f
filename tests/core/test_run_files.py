"""Files of a run folder come back as they were written, and old or damaged ones can be read."""

import json
import math

import pytest

from heldout.core.finite import finite
from heldout.core.measurement import Interval
from heldout.core.run_files import (
    FoldCurve,
    FoldPoint,
    HistoryEntry,
    Neighbor,
    PreflightCheck,
    RateSearch,
    RateTrial,
    RunSample,
)


@pytest.mark.parametrize(
    "written",
    [
        HistoryEntry(0, 0.0, 3.1, 3.0, 3.2, 3.3, None, 1e-3, True),
        HistoryEntry(9, 1.5, 2.9, 2.8, 3.0, 2.5, 2.6, 1e-3, False, -0.1, 0.2, True),
        RateSearch((RateTrial(1e-3, 2.5, 40, False, 1.5), RateTrial(1e-1, 3.5, 3, True)), 1e-3, 40),
        FoldCurve(5, (FoldPoint(0.0, 3.0, 2.9, 3.1), FoldPoint(0.5, 2.5, 2.4, 2.6)), 0.5),
        RunSample("train", "Once", "upon a time", base="", best="upon", last="a time"),
    ],
)
def test_what_is_written_comes_back(written):
    assert type(written).from_json(json.loads(json.dumps(written.to_json()))) == written


def test_a_model_that_wrote_nothing_is_not_in_the_file():
    written = RunSample("validation", "Once", "upon", base="", best="x").to_json()
    assert list(written) == ["part", "prompt", "reference", "base", "best"]


def test_numbers_that_are_not_finite_become_none():
    assert finite(3) == 3.0
    assert [finite(value) for value in (None, True, "3", math.nan, math.inf)] == [None] * 5
    entry = HistoryEntry.from_json({"step": 4, "epoch": 1, "validation_nll": math.nan})
    assert entry == HistoryEntry(4, 1.0)
    trial = RateTrial.from_json({"learning_rate": 1.0, "validation_nll": 7.0, "diverged": True})
    assert trial.diverged
    folds = {"folds": 2, "curve": [{"epoch": 0.0, "validation_nll": None}], "best_epoch": None}
    assert FoldCurve.from_json(folds) == FoldCurve(2, (), None)


def test_fields_of_other_versions_are_left_out():
    check = PreflightCheck.from_json({"name": "loss mask", "status": "ok", "seconds": 3})
    assert check == PreflightCheck("loss mask", "ok", "")
    entry = {
        "coordinate": "train.max_epochs",
        "value": 2,
        "loss": 2.5,
        "difference": 0.1,
        "interval": {"low": 0.0, "high": 0.2},
        "verdict": "worse",
    }
    expected = Neighbor("train.max_epochs", 2.0, 2.5, 0.1, Interval(0.0, 0.2), "worse")
    assert Neighbor.from_json(entry) == expected
