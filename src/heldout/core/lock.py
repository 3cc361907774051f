"""One process at a time in a folder that a job writes to, and temporary folders that go again."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from heldout.core.errors import UserError
from heldout.core.files import LOCK


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold ``folder``, made where it is missing, until the block ends or the process does.

    The lock is the operating system's, on a file in the folder that stays, so that a crash lets go
    of it. The thread that holds it may take it again, and processes that it starts write under it
    without asking. A folder made here in which nothing was written is removed. Raises UserError at
    once where another holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder. Nothing was written.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK
    lock = FileLock(path, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder} is in use by another heldout command: wait for its end, or stop it first."
        ) from None
    try:
        yield
    finally:
        if is_new and list(folder.iterdir()) == [folder / LOCK]:
            path.unlink()
            folder.rmdir()
        lock.release()


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for the block; those of its name that a kill has left are removed too."""
    _remove_left(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        with FileLock(folder / LOCK, timeout=0):
            yield folder


_SETTLED_SECONDS = 60.0  # a lock file that is younger may be about to be locked


def _remove_left(prefix: str) -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        lock = left / LOCK
        with suppress(OSError, Timeout):
            if left.is_symlink() or time.time() - lock.stat().st_mtime < _SETTLED_SECONDS:
                continue
            with FileLock(lock, timeout=0):
                shutil.rmtree(left)
