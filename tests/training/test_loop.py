import itertools

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue
from heldout.core.row import Row
from heldout.jobs.kit.prepare import load_prepared
from heldout.jobs.kit.target import Target
from heldout.training.loop import Schedule, Training, train
from heldout.training.windows import WindowDataset


@pytest.mark.parametrize(
    ("num_windows", "per_epoch", "epochs", "expected"),
    [
        (80, 2, 2, [5, 10, 15, 20]),
        (88, 2, 2, [6, 11, 16, 22]),  # 11 steps: halves are rounded to even
        (80, 1, 1.5, [10, 15]),
        (16, 9, 1, [1, 2]),  # no more evaluations than steps
        (8000, 0.5, 4, [2000, 4000]),
    ],
)
def test_checkpoints_are_measured_at_equal_fractions_of_an_epoch(
    num_windows, per_epoch, epochs, expected
):
    recipe = Recipe().replace(eval={"per_epoch": per_epoch})
    schedule = Schedule.of(num_windows, recipe, max_epochs=epochs)
    steps = [s for s in range(1, schedule.max_steps + 1) if schedule.evaluates_at(s)]
    assert steps == expected
    assert schedule.num_evaluations == len(expected)


def test_evaluations_are_counted_without_going_through_the_steps():
    for steps, per_epoch, most in itertools.product(
        (1, 3, 7, 11), (0.3, 0.7, 1, 2.5, 3, 9), (1, 40)
    ):
        schedule = Schedule(steps, most, min(per_epoch, steps))
        counted = sum(map(schedule.evaluates_at, range(1, most + 1)))
        assert schedule.num_evaluations == counted, schedule


def test_more_steps_than_can_be_planned_are_refused():
    recipe = Recipe().replace(train={"max_epochs": 1e12})
    with pytest.raises(UserError, match=r"1e\+12 epochs of 10 steps are more than the 10,000,000"):
        Schedule.of(80, recipe)
    assert Schedule.of(80, recipe, max_epochs=1e6).max_steps == 10_000_000


def test_a_training_whose_time_is_up_is_measured_and_ends(tiny_model_dir, tmp_path):
    recipe = Recipe().replace(model={"method": "full"})
    model, tokenizer = load_prepared(Target.of(str(tiny_model_dir), ""), recipe)
    config = model.config.to_dict()
    rows = [
        Row(index=i, group=str(i), messages=({"role": "text", "content": f"Rain {i} falls."},))
        for i in range(40)
    ]
    windows = WindowDataset(rows, tokenizer, 32)
    measured = []

    def measure(step, epoch, loss, rate):
        measured.append(step)
        assert model.config.to_dict() == config, "what is saved here is as the base's"
        return Continue(), {}

    looks = itertools.count(1)
    outcome = train(
        Training(model, windows, recipe, [], 1e-3, Schedule(10, 40, 0.5), tmp_path),
        on_evaluate=measure,
        is_time_up=lambda: next(looks) == 3,
        checkpoints=False,
    )
    assert measured == [3]
    assert (outcome.step, outcome.interrupted) == (3, False)
    assert outcome.reason == "the minutes for it were used up"
