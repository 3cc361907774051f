"""Tasks in processes beside the job's own: all are done, and all end as one."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest
import tasks_beside as tasks

from heldout.core.errors import Interrupted, TrainingDiverged, UserError
from heldout.core.interrupt import StopRequest, ask_to_stop, stop_on_interrupt
from heldout.core.progress import Progress
from heldout.jobs.kit.places import Places
from heldout.jobs.kit.side_by_side import SideBySide, Task


class Lines(Progress):
    """Everything that is told, by whom."""

    def __init__(self, told, name=""):
        self.told = told
        self.name = name

    @contextmanager
    def stage(self, name, total=None):
        self.told.append((self.name, "stage", name, total))
        yield
        self.told.append((self.name, "left", name, total))

    def advance(self, num=1, text=""):
        self.told.append((self.name, "advance", num, text))

    def note(self, text):
        self.told.append((self.name, "note", text, None))

    def beside(self, name):
        return Lines(self.told, name)


def side_by_side(folder, most=2, progress=None, request=None):
    request = StopRequest() if request is None else request
    return SideBySide(Places(most, 1), progress or Progress(), request, folder / "logs")


def task(function, called="a task", **arguments):
    return Task(called, function, {key: str(value) for key, value in arguments.items()})


def meeting(folder, *names):
    return [
        Task(name, tasks.meet, {"folder": str(folder), "name": name, "others": names})
        for name in names
    ]


def appears(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def failure_of(beside, *added):
    """How tasks end that other processes have begun."""
    try:
        with beside:
            beside.add(*added)
            while beside._queue:
                time.sleep(0.01)
    except Exception as error:
        return error
    raise AssertionError("it ended well")


def test_tasks_are_at_work_at_once_and_tell_what_they_do(tmp_path):
    told = []
    with side_by_side(tmp_path, progress=Lines(told)) as beside:
        beside.add(*meeting(tmp_path, "first", "second"))
    pids = {name: int((tmp_path / name).read_text()) for name in ("first", "second")}
    assert sorted(pid == os.getpid() for pid in pids.values()) == [False, True]
    other = next(name for name, pid in pids.items() if pid != os.getpid())
    assert [line[1:] for line in told if line[0] == other] == [
        ("stage", other, 2),
        ("advance", 1, "half"),
        ("advance", 1, ""),
        ("left", other, 2),
        ("note", f"{other} is done", None),
    ]
    assert not psutil.pid_exists(pids[other])


def test_a_kept_process_does_the_tasks_of_later_rounds_too(tmp_path):
    with side_by_side(tmp_path) as beside:
        with beside.kept():
            for number in range(2):
                folder = tmp_path / str(number)
                folder.mkdir()
                beside.add(*meeting(folder, "first", "second"))
                beside.finish()
        pids = [{int(path.read_text()) for path in tmp_path.glob(f"{n}/*")} for n in range(2)]
        assert pids[0] == pids[1]
        (other,) = pids[0] - {os.getpid()}
    assert not psutil.pid_exists(other)


def test_with_one_place_all_is_done_here_when_asked_for(tmp_path):
    names = ("first", "second")
    with side_by_side(tmp_path, most=1) as beside:
        beside.add(*(task(tasks.write_pid, folder=tmp_path, name=name) for name in names))
        assert not (tmp_path / "first").exists()
    assert {(tmp_path / name).read_text() for name in names} == {str(os.getpid())}
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("function", "kind"), [(tasks.refuse, UserError), (tasks.diverge, TrainingDiverged)]
)
def test_an_error_is_the_same_as_in_this_process(function, kind, tmp_path):
    found = failure_of(side_by_side(tmp_path), task(function, message="x must be 1, got 2."))
    assert type(found) is kind
    assert str(found) == "x must be 1, got 2."


def test_a_full_disk_is_told_as_one(tmp_path):
    found = failure_of(side_by_side(tmp_path), task(tasks.fill_the_disk, path="/there"))
    assert isinstance(found, OSError)
    assert (found.errno, found.filename) == (28, "/there")


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path):
    found = failure_of(side_by_side(tmp_path), task(tasks.divide, "some work"))
    assert isinstance(found, RuntimeError)
    assert str(found).startswith("some work: ZeroDivisionError: division by zero")
    log = (tmp_path / "logs" / "beside-1.log").read_text()
    assert "some work" in log
    assert "about to divide" in log
    assert "Traceback" in log


def test_a_killed_process_is_named_and_ends_the_others(tmp_path):
    found = failure_of(
        side_by_side(tmp_path, most=3),
        task(tasks.be_killed, "the victim", after=tmp_path / "other"),
        task(tasks.until_asked, "the other", folder=tmp_path, name="other"),
    )
    assert isinstance(found, UserError)
    assert str(found).startswith("the victim: its process ended with SIGKILL")
    assert (tmp_path / "other.kept").exists()


def test_whoever_is_asked_to_stop_asks_the_others(tmp_path):
    request = StopRequest()
    with pytest.raises(Interrupted), side_by_side(tmp_path, request=request) as beside:  # noqa: PT012
        beside.add(task(tasks.until_asked, folder=tmp_path, name="work"))
        appears(tmp_path / "work")
        request.asked = True
    assert (tmp_path / "work.kept").exists()
    assert not psutil.pid_exists(int((tmp_path / "work").read_text()))


def test_an_error_here_stops_the_others_with_their_work_kept(tmp_path):
    with pytest.raises(UserError, match="mine"), side_by_side(tmp_path) as beside:  # noqa: PT012
        beside.add(task(tasks.until_asked, folder=tmp_path, name="work"))
        appears(tmp_path / "work")
        raise UserError("mine")
    assert (tmp_path / "work.kept").exists()


def test_an_end_at_once_ends_the_others_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt), side_by_side(tmp_path) as beside:  # noqa: PT012
        beside.add(task(tasks.until_asked, folder=tmp_path, name="work"))
        appears(tmp_path / "work")
        raise KeyboardInterrupt
    assert not psutil.pid_exists(int((tmp_path / "work").read_text()))


JOB = """
import sys, time
import tasks_beside as tasks
from test_side_by_side import side_by_side, task
from pathlib import Path
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with side_by_side(folder) as beside:
        beside.add(task(tasks.until_asked, folder=folder, name="work"))
        time.sleep(100)
"""


@pytest.mark.slow
def test_no_process_outlives_the_job(tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    path = os.pathsep.join(path for path in sys.path if path)
    job = subprocess.Popen(
        [sys.executable, str(tmp_path / "job.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
    )
    appears(tmp_path / "work")
    other = psutil.Process(int((tmp_path / "work").read_text()))
    job.send_signal(signal.SIGKILL)
    job.wait()
    other.wait(timeout=30)
    assert not (tmp_path / "work.kept").exists()


def test_asking_reaches_requests_in_force_and_those_in_them():
    with stop_on_interrupt() as outer:
        thread = threading.Thread(target=ask_to_stop)
        thread.start()
        thread.join()
        with stop_on_interrupt() as inner:
            assert inner
        assert outer
    with stop_on_interrupt() as later:
        assert not later
