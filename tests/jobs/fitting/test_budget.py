"""What a run does within its minutes, and what is left out first."""

from dataclasses import replace

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import load_recipe
from heldout.core.run import Run
from heldout.jobs.fitting.budget import Budget, planned
from heldout.jobs.fitting.estimate import Work
from heldout.jobs.fitting.fit import fit, resume
from heldout.jobs.fitting.timing import Speeds
from heldout.jobs.kit.dry_run import dry_run_of
from heldout.jobs.kit.parts import read_parts
from heldout.jobs.kit.target import Target

# A step takes a second, so that an epoch of 23 steps takes half a minute with its evaluations.
SPEEDS = Speeds(
    load=1.0,
    start=1.0,
    step=1.0,
    plain_step=1.0,
    loss=2e-4,
    reading=2e-4,
    prompts=1.0,
    token=0.1,
)


@pytest.fixture(scope="module")
def within(tiny_model_dir, data, tmp_path_factory):
    """``planned`` for so many minutes of the recipe ``full`` with settings, at these speeds."""
    target = Target.of(str(tiny_model_dir), "")
    recipe = load_recipe("full", ["data.max_length=48", "train.side_by_side=1"])
    parts = read_parts(data, recipe)
    _, ready = dry_run_of(parts, recipe, target, tmp_path_factory.mktemp("planned"))

    def plan(minutes, *settings, spent=0.0):
        asked = load_recipe(
            "full",
            [
                "data.max_length=48",
                "train.side_by_side=1",
                f"train.max_minutes={minutes}",
                *settings,
            ],
        )
        work = Work(ready, parts, asked, SPEEDS, True)
        found = planned(work, spent)
        assert spent + found.estimate.seconds <= 60 * minutes
        return found

    return plan


def test_with_time_for_all_nothing_is_left_out(within):
    plan = within(60, "train.max_epochs=30", "control.fixed_epochs=30")
    assert plan.budget.left_out == ()
    assert plan.work.recipe.control.fixed_epochs == 30
    assert plan.work.recipe.train.max_epochs == 30


def test_what_comes_last_goes_first(within):
    """The control, then trials, then their search; the length is left to the clock."""
    given = ("train.max_epochs=10", "control.fixed_epochs=10")
    seen = []
    for minutes in (60, 26, 18, 12, 8, 4):
        found = within(minutes, *given)
        recipe = found.work.recipe
        assert recipe.train.max_epochs == 10
        seen.append((recipe.control.fixed_epochs > 0, recipe.search.max_trials))
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == ((True, 5), (False, 1))
    assert (False, 5) in seen
    assert len({trials for _, trials in seen}) > 2
    left_out = found.budget.left_out
    assert left_out[0] == "the search for a learning rate"
    assert left_out[1].startswith("epochs beyond about ")
    assert "A control is trained at the end, if there is time." in found.budget.words_before


def test_a_rate_that_falls_falls_within_the_minutes(within):
    given = ("train.schedule=linear", "train.learning_rate=1e-3")
    epochs = within(6, *given).work.recipe.train.max_epochs
    assert 5 < epochs < 12
    assert within(12, *given).work.recipe.train.max_epochs == pytest.approx(2 * epochs, rel=0.3)


def test_time_that_is_left_goes_to_epochs_where_early_stopping_ends_them(within):
    rate = "train.learning_rate=1e-3"
    assert within(60, rate).work.recipe.train.max_epochs > 100
    assert within(60, rate, "train.max_epochs=12").work.recipe.train.max_epochs == 12
    never = "regularizers.early_stopping=false"
    assert within(60, rate, never).work.recipe.train.max_epochs == 20


def test_time_that_was_taken_counts(within):
    few, many = (within(10, spent=spent).estimate.seconds for spent in (0.0, 240.0))
    assert few - many == pytest.approx(240, abs=60)


def test_a_search_of_ranges_has_fewer_and_then_shorter_trials(within):
    ranges = (
        "train.learning_rate=1e-3",
        "train.max_epochs=10",
        "search.ranges.train.adam_beta2=[0.99, 0.999]",
        "search.max_trials=12",
        "search.repeats=2",
        "search.ablate=show",
    )
    plan = within(40, *ranges)
    recipe = plan.work.recipe
    assert (recipe.search.repeats, recipe.search.ablate) == (0, "off")
    assert 4 < recipe.search.max_trials < 12
    assert recipe.train.max_epochs == 10
    short = within(15, *ranges).work.recipe
    assert short.search.max_trials == 4
    assert 1 < short.train.max_epochs < 10


def test_too_few_minutes_are_refused_and_say_how_many_will_do(within):
    with pytest.raises(UserError, match=r"take about .* Give at least --minutes 1\.\d\.") as told:
        within(0.5)
    assert "Nothing was written" in str(told.value)


BUDGET = Budget(10.0, (), 0.0, False, epoch=10.0, control_epoch=8.0, after=60.0)
RESULT = {"last_epoch": 6.0, "seconds_training": 60.0}


def test_a_control_is_as_long_as_the_training_where_there_is_time():
    epochs, words = BUDGET.control(400.0, RESULT)
    assert (epochs, words) == (6.0, "There is time for a control of 6 epochs.")
    epochs, words = BUDGET.control(500.0, RESULT)
    assert epochs == 0
    assert words == (
        "The control was left out: it takes about 50 seconds, and 25 seconds are left."
    )
    assert replace(BUDGET, control_epochs=3.0).control(475.0, RESULT)[0] == 3.0


def test_a_training_that_was_slower_than_timed_has_a_slower_control():
    slow = {**RESULT, "seconds_training": 120.0}
    assert BUDGET.control(400.0, slow)[0] == 0
    assert BUDGET.control(360.0, slow)[0] == 6.0


def test_training_ends_when_the_test_needs_the_rest():
    assert not BUDGET.is_up(520.0)
    assert BUDGET.is_up(523.0)


@pytest.mark.slow
def test_a_run_keeps_to_its_minutes_also_resumed(tiny_model_dir, data, tmp_path):
    given = (
        "data.max_length=48",
        "train.max_epochs=2000",
        "eval.num_samples=0",
        "eval.max_recital_rows=8",
    )
    result = fit(
        str(tiny_model_dir),
        data,
        out=tmp_path / "run",
        recipe="plain",
        settings=[*given, "train.max_minutes=2", "train.learning_rate=1e-3"],
    )
    seconds = result.run.status["seconds"]
    assert 0.7 * 120 < seconds < 1.1 * 120
    found = result.run.read_json("result.json")
    assert found["stop_reason"] == "the minutes for it were used up"
    assert result.run.history()[-1]["step"] == found["last_step"]
    told = {each["name"]: each["message"] for each in result.run.read_json("checks.json")}
    assert told["time limit"].startswith("Planned within 2 min. Left out: epochs beyond about ")
    assert "control" in told["time limit"]
    # Killed before its test: what was taken counts, so the resumed run does not train on.
    for name in ("result.json", "recitals.json"):
        result.run.path(name).unlink()
    again = resume(tmp_path / "run")
    assert again.run.read_json("result.json")["last_step"] <= found["last_step"]
    assert Run(tmp_path / "run").status["seconds"] < seconds + 30
