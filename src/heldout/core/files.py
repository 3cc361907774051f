"""Files and folders that are written whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to; put in place when all went well.

    The path's ending stays, as libraries add their own to names without it. After an error nothing
    is left of it, and what ``path`` held before is untouched. A folder replaces none but an empty
    one.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    _remove(partial)
    try:
        yield partial
    except BaseException:
        _remove(partial)
        raise
    partial.replace(path)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole or not at all. Returns ``path``."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
