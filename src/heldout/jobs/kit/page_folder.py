"""A page and its JSON in a new folder: both of them or nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_page_folder(
    folder: Path, name: str, content: dict[str, Any], write_page: Callable[[Path], Any]
) -> None:
    """``name`` with ``content``, and ``report.html``; an empty folder may be there already."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    text = json.dumps(content, ensure_ascii=False, indent=2)
    (partial / name).write_text(text + "\n", encoding="utf-8")
    write_page(partial / "report.html")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
