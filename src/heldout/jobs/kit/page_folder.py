"""A page and its JSON in a folder: both of them or nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heldout.core.files import write_text, written_whole


def write_page_folder(
    folder: Path, name: str, content: dict[str, Any], write_page: Callable[[Path], Any]
) -> None:
    """``name`` with ``content``, and ``report.html`` by ``write_page``.

    A new folder appears with both. Into one that is there, such as that of trainings that go on, or
    the current one, the page is put first and the JSON last.
    """
    text = _by_entry(content)
    if folder.exists():
        with written_whole(folder / "report.html") as page:
            write_page(page)
        write_text(folder / name, text)
        return
    with written_whole(folder) as partial:
        partial.mkdir(parents=True)
        write_page(partial / "report.html")
        write_text(partial / name, text)


def _by_entry(content: dict[str, Any]) -> str:
    """JSON with an entry or an element of a list a line: indenting all of it is slow in Python."""
    entries = []
    for key, value in content.items():
        if isinstance(value, list) and value:
            value_json = "[\n    " + ",\n    ".join(map(_compact, value)) + "\n  ]"
        else:
            value_json = _compact(value)
        entries.append(f"  {_compact(key)}: {value_json}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
