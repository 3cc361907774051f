"""Which evidence is gathered, in which order, and what is refused before any model runs."""

import pytest

from heldout.core.errors import UserError
from heldout.jobs.evidence.gatherer import Asked, gatherers_for


def names(**asked):
    return [
        type(each).__name__.removesuffix("Gatherer")
        for each in gatherers_for(Asked(**{"probes": ["landscape", "fragments"], **asked}))
    ]


def test_each_kind_runs_in_the_order_of_its_stage():
    assert names() == [
        "PassStatistics",
        "Corpora",
        "Generations",
        "PromptPairs",
        "PersonalData",
        "Landscape",
    ]


def test_what_is_not_asked_for_is_left_out():
    assert names(generate=False, probes=["heldout_loss"]) == ["PassStatistics", "PersonalData"]


def test_a_wrong_file_is_refused_before_any_model_runs(tmp_path):
    file = tmp_path / "canaries.json"
    file.write_text('{"rows": 3}')
    with pytest.raises(UserError, match=r"is not what heldout check --plant-canaries writes"):
        gatherers_for(Asked([], canaries=str(file)))
