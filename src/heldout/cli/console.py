"""The terminal, in the language in use: what is printed here passes `heldout.core.language.say`."""

import re
from typing import Any

import rich.console
import rich.table
from rich.cells import cell_len

from heldout.core.language import language, say

# "report      out/report.html": a label, its column filled with spaces, and what it labels.
_LABEL = re.compile(r"(\s*)(\S+(?: \S+)*)( {2,})(\S.*)", re.DOTALL)


class Console(rich.console.Console):
    """rich's console; strings are shown in the language in use, data (paths, rows) as they are."""

    def __init__(self, **options: Any):
        super().__init__(**{"highlight": False, "emoji": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        if language() == "zh":  # no spaces to break lines at: the terminal breaks them
            options.setdefault("soft_wrap", all(isinstance(each, str) for each in objects))
        super().print(*map(_said, objects), **options)


class Table(rich.table.Table):
    """rich's table; headers and cells are shown in the language in use."""

    def add_column(self, header: Any = "", *more: Any, **options: Any) -> None:
        if language() == "zh":
            options.setdefault("overflow", "fold")
        super().add_column(_said(header), *more, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_said, cells), **options)


def _said(shown: Any) -> Any:
    if not isinstance(shown, str):
        return shown
    if found := _LABEL.fullmatch(shown):
        before, label, gap, rest = found.groups()
        said = say(label)
        width = max(2, cell_len(label + gap) - cell_len(said))
        return f"{before}{said}{' ' * width}{say(rest)}"
    return say(shown)
