"""One process at a time in a folder that a job writes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from heldout.core.errors import UserError
from heldout.core.files import LOCK, holds_files


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
    try:
        with FileLock(path, timeout=0, is_singleton=True):
            try:
                yield
            finally:
                if is_new and not holds_files(folder):
                    path.unlink()
                    folder.rmdir()
    except Timeout:
        raise UserError(
            f"{folder} is in use by another heldout command: wait for its end, or stop it first."
        ) from None
