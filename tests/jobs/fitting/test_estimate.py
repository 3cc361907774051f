"""How long a run will take is told from what it does and a few timed steps."""

import pytest

from heldout.jobs.fitting.fit import dry_run

SHORT = ("data.max_length=48", "train.side_by_side=1", "eval.max_train_rows=20")


@pytest.fixture
def plan(tiny_model_dir, data, tmp_path):
    def planned(*settings, recipe="full"):
        found = dry_run(
            str(tiny_model_dir),
            data,
            recipe=recipe,
            settings=[*SHORT, *settings],
            out=tmp_path / "r",
        )
        assert list(tmp_path.iterdir()) == []
        return found

    return planned


def test_a_dry_run_tells_what_the_parts_of_a_run_take(plan):
    short = plan("train.max_epochs=100", "control.fixed_epochs=100").estimate
    assert short.is_timed
    assert [part.name for part in short.parts] == [
        "search",
        "training",
        "control without regularization",
        "sealed test",
        "report",
    ]
    assert all(part.seconds > 0 for part in short.parts)
    assert short.seconds == pytest.approx(sum(part.seconds for part in short.parts))
    # Five trials of 100 steps, one of which is the beginning of the training.
    steps = {part.name: part.units for part in short.parts}
    assert (steps["search"], steps["training"]) == (500, 2300)
    assert 0.1 < short.of("search") / short.of("training") < 1
    assert 0.1 < short.gigabytes < 8


def test_little_work_is_counted_and_not_timed(plan):
    found = plan("train.learning_rate=1e-3", "train.max_epochs=2").estimate
    assert not found.is_timed
    assert [part.name for part in found.parts] == ["training", "sealed test", "report"]
    assert found.words.startswith("less than a minute and ")
