"""Where a run goes when the user does not say."""

import tempfile
import time
from pathlib import Path


def default_folder(model: str, data: str) -> Path:
    """``runs/<time>-<data>-<model>``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{_short(data)}-{_short(model)}"


def existing_parent(folder: Path) -> Path:
    """The nearest folder above that exists: its disk is the one a run will fill."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _short(name: str) -> str:
    stem = Path(name.rstrip("/")).stem or name
    words = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem.split(":")[-1])
    return words[:40].strip("-") or tempfile.gettempprefix()
