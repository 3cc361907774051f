import pytest

from heldout.core.recipe import Recipe
from heldout.training.loop import Schedule


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
