"""Rules from facts to a recipe: what they choose, and that what they say is recorded."""

import json
import re
from pathlib import Path

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import load_recipe, recipe_names
from heldout.core.results.advice import Fact
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.planning.recipe_rules import (
    GOALS,
    Condition,
    check_goal,
    read_recipe_rules,
    recipe_advice,
)
from heldout.search.learning_rate import SMALL_MODEL
from heldout.training.compatible import check_together

RECORDS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
RULES = read_recipe_rules().rules
NUMBER = re.compile(r"(?<![\w.])(\d?\.\d\d\d?)(?!\d)")

SMALL = {
    "rows": 200,
    "train_rows": 140,
    "groups": 200,
    "folds": 0,
    "kind": "completion",
    "script": "LATIN",
    "paragraph_share": 0.0,
    "duplicate_share": 0.0,
    "parameters": 2_645_120,
    "adapter": 0,
    "full_memory_share": 0.01,
    "adapter_memory_share": 0.002,
    "full_gigabytes": 0.04,
    "bits": 4e5,
    "full_filled_share": 0.06,
    "adapter_filled_share": 1.6,
}
LARGE = {**SMALL, "parameters": 135_000_000, "full_memory_share": 0.2, "full_gigabytes": 2.2}


def advice(facts, goal="loss", **changed):
    return recipe_advice([Fact(*each) for each in {**facts, **changed}.items()], goal)


def test_the_recipe_goes_by_size_memory_and_goal():
    assert advice(SMALL).recipe == "full"
    assert advice(LARGE).recipe == "lora"
    assert advice(SMALL, adapter=1).recipe == "lora"
    assert advice(SMALL, full_memory_share=1.2, adapter_memory_share=0.3).recipe == "lora"
    assert advice(LARGE, full_memory_share=4.0, adapter_memory_share=0.9).recipe == "limited"
    keeps = advice(SMALL, "forgetting")
    assert (keeps.recipe, keeps.settings) == ("cross_domain", ("model.method=full",))
    assert advice(LARGE, "forgetting").settings == ()


def test_calibration_is_by_what_the_recipe_and_the_rows_allow():
    assert advice(SMALL, "calibration").settings == ("regularizers.temperature=true",)
    for facts in ({**SMALL, "folds": 1}, LARGE):
        assert advice(facts, "calibration").settings == ("regularizers.confidence_penalty=true",)


def test_what_was_not_measured_chooses_nothing():
    unknown = advice({"parameters": 2_645_120, "full_gigabytes": 0.04})
    assert unknown.recipe == "lora", "no memory is known"
    assert {each.about for each in unknown.choices} == {"recipe", "learning rate", "length"}
    with pytest.raises(KeyError):
        unknown.choice("capacity")


def test_capacity_is_that_of_what_is_trained():
    assert "can be learned by heart" in advice(SMALL).choice("capacity").says
    assert "6.0% of what" in advice(SMALL).choice("capacity").reason
    assert advice(SMALL).choice("capacity").changes.startswith("17 times")
    assert "not all of it" in advice(LARGE).choice("capacity").says


def test_rows_ask_for_folds_copies_and_trials():
    found = advice(SMALL, "forgetting", folds=1, groups=25, duplicate_share=0.04)
    assert "regularizers.wise_ft=false" in found.settings
    assert found.choice("held-out rows").reason.startswith("25 groups")
    assert found.cleans
    assert found.choice("copies").reason.startswith("4% of the rows")
    assert not advice(SMALL).cleans
    text = {**SMALL, "kind": "text"}
    assert advice(text).choice("augmentation").tries == ("augment.keyboard_noise=true",)
    few = advice(text, train_rows=60, paragraph_share=0.9)
    assert few.choice("augmentation").tries == ("augment.document_shuffle=true",)
    assert few.settings == (), "a trial is told, not set"
    with pytest.raises(KeyError):
        advice(text, script="THAI").choice("augmentation")


def test_what_no_record_tells_is_one_line():
    for facts in (SMALL, LARGE):
        assert advice(facts).not_known.startswith("Not known from any record")
    assert advice(SMALL).not_known != advice(LARGE).not_known


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("facts", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("folds", [0, 1])
def test_what_is_advised_can_be_set_and_goes_together(goal, facts, folds):
    found = advice(facts, goal, folds=folds)
    tries = [setting for choice in found.choices for setting in choice.tries]
    recipe = load_recipe(found.recipe, [*found.settings, *tries])
    check_together(regularizers_of(recipe))
    assert found.recipe in recipe_names()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.about}: {rule.says[:20]}")
def test_a_rule_rests_on_a_record_or_a_source_and_quotes_it_right(rule):
    assert bool(rule.records) != bool(rule.source)
    held = set()
    for record in rule.records:
        (path,) = RECORDS.glob(f"{record}_cpu-*.json")
        for value in json.loads(path.read_text(encoding="utf-8"))["figures"].values():
            held |= {f"{abs(value):.{digits}f}" for digits in (2, 3)}
    for number in NUMBER.findall(rule.reason + rule.changes):
        assert number in held, number
    assert set(rule.goals) <= set(GOALS)


def test_a_condition_has_one_bound():
    with pytest.raises(AssertionError):
        Condition("rows", above=1, below=2)
    assert not Condition("rows", above=1).holds({"rows": None})
    with pytest.raises(UserError, match="--goal must be one of loss, memorization"):
        check_goal("accuracy")


def test_the_bound_of_small_models_is_that_of_the_default_recipe():
    bounds = [
        condition.below
        for rule in RULES
        for condition in rule.when
        if condition.fact == "parameters"
    ]
    assert bounds
    assert set(bounds) == {SMALL_MODEL}
