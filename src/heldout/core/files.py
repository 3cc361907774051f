"""Files and folders that are written whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"  # in a folder that one process at a time writes to, see ``heldout.core.lock``


def holds_files(folder: Path) -> bool:
    """Whether there is more in a folder than its lock and what a kill left half written."""
    return any(path.name != LOCK and ".partial" not in path.name for path in folder.iterdir())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to; put in place when all went well.

    The path's ending stays, as libraries add their own to names without it. After an error nothing
    is left of it, and what ``path`` held before is untouched. A folder replaces none but an empty
    one.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    remove(partial)
    try:
        yield partial
    except BaseException:
        remove(partial)
        raise
    partial.replace(path)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole or not at all. Returns ``path``."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def remove(path: Path) -> None:
    """A file or a whole folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
