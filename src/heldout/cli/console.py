"""The terminal, in the language in use: what is printed here passes `heldout.core.language.say`."""

from typing import Any

import rich.console
import rich.table

from heldout.core.language import say


class Console(rich.console.Console):
    """rich's console; strings are shown in the language in use, data (paths, rows) as they are."""

    def __init__(self, **options: Any):
        super().__init__(**{"highlight": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_said, objects), **options)


class Table(rich.table.Table):
    """rich's table; headers and cells are shown in the language in use."""

    def add_column(self, header: Any = "", *more: Any, **options: Any) -> None:
        super().add_column(_said(header), *more, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_said, cells), **options)


def _said(shown: Any) -> Any:
    return say(shown) if isinstance(shown, str) else shown
