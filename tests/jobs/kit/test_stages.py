"""How a run is left that is stopped."""

import os
import signal

import pytest

from heldout.core.errors import Interrupted
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.jobs.kit.stages import stages_of


def test_a_second_ctrl_c_stops_at_once_and_names_the_run(tmp_path):
    run = Run.create(tmp_path / "run", Recipe())
    published = []

    def is_stopped_twice():
        left = stages_of(run, with_memory=False, after_failure=lambda: published.append(1))
        with left as (_, asked):
            os.kill(os.getpid(), signal.SIGINT)
            assert asked
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        is_stopped_twice()
    assert (stopped.value.run, stopped.value.at_once) == (run.folder, True)
    assert Run.open(run.folder).status["state"] == "interrupted"
    assert not published, "that would take its time"
