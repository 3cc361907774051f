"""One line of all of a job, in a terminal and without one."""

import io

import pytest
from rich.progress import Progress as Bars

from heldout.cli import progress as module
from heldout.cli.console import Console
from heldout.cli.progress import ConsoleProgress, console_progress
from heldout.core.job_time import JobPart

PARTS = (
    JobPart("search", 200.0, 10, at_most=True),
    JobPart("training", 100.0, 10, at_most=True),
    JobPart("report", 20.0, 1),
)


@pytest.fixture
def terminal(monkeypatch):
    """Progress in a terminal, and what that shows now."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=140)
    monkeypatch.setattr(module, "Console", lambda **_: console)
    with console_progress() as progress:

        def shown():
            out.truncate(0)
            out.seek(0)
            progress.bars.refresh()
            return out.getvalue().rpartition("\r")[2]

        yield progress, shown


def test_a_job_is_one_line_of_all_of_it(terminal):
    progress, shown = terminal
    progress.job(PARTS)
    progress.part("search")
    with progress.stage("learning rate 0.001", 10):
        assert "at most 6 minutes left" in shown()
        progress.advance(5, "held-out 3.1")
        beside = progress.beside("learning rate 0.003")
        with beside.stage("learning rate 0.003", 10):
            beside.advance(1, "held-out 9.9")
        assert shown().count("left") == 1
        assert "held-out 3.1" in shown()
    progress.part("report")
    assert "report" in shown()
    assert "about" in shown()
    progress.job(())
    with progress.stage("another job"):
        assert "left" not in shown()


def test_a_stage_without_a_length_has_no_time_left(terminal):
    progress, shown = terminal
    with progress.stage("data and checks"):
        line = shown()
    assert "data and checks" in line
    assert "-:--" not in line
    assert "left" not in line


def test_without_a_terminal_each_part_says_what_is_left():
    out = io.StringIO()
    console = Console(file=out, width=100)
    progress = ConsoleProgress(console, Bars(console=console, disable=True))
    progress.job(PARTS)
    progress.part("augmentation")
    progress.part("training")
    with progress.stage("training", 10):
        progress.advance(4, "train 2.0, held-out 3.0")
    lines = out.getvalue().splitlines()
    assert lines == [
        "training, part 2 of 3: at most 2 minutes left",
        "training ...",
        "  4: train 2.0, held-out 3.0",
    ]
