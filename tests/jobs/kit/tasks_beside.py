"""Tasks that other processes import and do: each leaves what it did in files of a folder."""

import os
import signal
import time
from pathlib import Path

from heldout.core.errors import Interrupted, TrainingDiverged, UserError


def meet(progress, request, *, folder, name, others):
    """Ends once all others have begun, which needs them to be at work at the same time."""
    place = Path(folder)
    _leave_pid(place / name)
    with progress.stage(name, 2):
        progress.advance(1, "half")
        _wait(lambda: all((place / other).exists() for other in others))
        progress.advance()
    progress.note(f"{name} is done")


def write_pid(progress, request, *, folder, name):
    _leave_pid(Path(folder) / name)


def until_asked(progress, request, *, folder, name):
    """Works until it is asked to stop, then keeps what it has."""
    _leave_pid(Path(folder) / name)
    _wait(lambda: bool(request))
    (Path(folder) / f"{name}.kept").write_text("")
    raise Interrupted


def refuse(progress, request, *, message):
    raise UserError(message)


def diverge(progress, request, *, message):
    raise TrainingDiverged(message)


def fill_the_disk(progress, request, *, path):
    raise OSError(28, "No space left on device", path)


def divide(progress, request):
    print("about to divide")
    1 / 0  # noqa: B018


def be_killed(progress, request, *, after):
    _wait(lambda: Path(after).exists())
    os.kill(os.getpid(), signal.SIGKILL)


def _leave_pid(path):
    """The file appears with its number in it, as others read it at once."""
    written = path.with_name(f".{path.name}")
    written.write_text(str(os.getpid()))
    written.replace(path)


def _wait(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.01)
