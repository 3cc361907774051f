"""Data given as an object: rows of dicts, a table of pandas, a data set or several.

They are written to a scratch folder as files, so that one reader knows formats, splits and faults;
what people read names the argument and the row instead of that folder.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from heldout.core.errors import UserError
from heldout.core.lock import scratch_folder
from heldout.core.row import Row

T = TypeVar("T")


class TableOfRows(Protocol):
    """A ``pandas.DataFrame`` or a ``datasets.Dataset``."""

    def to_dict(self, *args: Any, **kwargs: Any) -> Any:
        """By which both are known."""


Rows: TypeAlias = Iterable[Mapping[str, Any] | Row] | TableOfRows
# A path or Hub id, or rows, or several parts by name, such as a ``datasets.DatasetDict``.
DataSource: TypeAlias = str | Path | Rows | Mapping[str, Rows]
# One or several: paths, names or tables in a list, or by name in a dict.
DataSources: TypeAlias = DataSource | Sequence[DataSource] | Mapping[str, DataSource]


@dataclass(frozen=True)
class GivenData:
    """Where rows lie while a job reads them."""

    path: str
    argument: str = ""  # empty: the user named the path

    @property
    def shown(self) -> str:
        """For the name of a run folder."""
        return self.argument or self.path

    def renamed(self, value: T) -> T:
        """``value``, a text or whatever holds texts, with the argument in place of the path."""
        return renamed(value, self._words) if self.argument else value

    def kept_in(self, folder: Path) -> str:
        """A path that stays when the job ends: rows given as objects are copied to ``folder``."""
        if not self.argument:
            return self.path
        source = Path(self.path)
        kept = folder / source.name
        if source.is_dir():
            shutil.copytree(source, kept)
        else:
            shutil.copyfile(source, kept)
        return str(kept.resolve())

    def _words(self, text: str) -> str:
        if self.path not in text:
            return text
        stem, argument = re.escape(self.path.removesuffix(".jsonl")), self.argument

        def words(found: re.Match) -> str:
            part = f"{argument}[{found['part']!r}]" if found["part"] else argument
            return f"{part} row {found['row']}" if found["row"] else part

        place = re.compile(rf"{stem}(?:/(?P<part>[\w-]+))?(?:\.jsonl)?(?: line (?P<row>\d+))?")
        return place.sub(words, text)


@contextmanager
def given_data(data: Any, argument: str = "data") -> Iterator[GivenData]:
    """A path as it is; anything else as files that are there while the block runs.

    Raises UserError for what is no rows, and names ``argument`` in those that are raised inside.
    """
    if isinstance(data, str | Path):
        yield GivenData(str(data))
        return
    with scratch_folder("heldout-data-") as folder:
        given = GivenData(str(_written(data, folder, argument)), argument)
        try:
            yield given
        except UserError as error:
            raise type(error)(given.renamed(str(error))) from None


@contextmanager
def given_sources(sources: Any, argument: str) -> Iterator[list[GivenData]]:
    """As ``given_data``, of several: a list of paths or tables, or a dict of these by name.

    A list of dicts is the rows of one.
    """
    with ExitStack() as entered:
        yield [
            entered.enter_context(given_data(each, name))
            for name, each in _several(sources, argument)
        ]


def _several(sources: Any, argument: str) -> list[tuple[str, Any]]:
    if isinstance(sources, Mapping):
        return [(f"{argument}[{name!r}]", each) for name, each in sources.items()]
    if isinstance(sources, str | Path) or hasattr(sources, "to_dict"):
        return [(argument, sources)]
    if not isinstance(sources, Iterable):
        return [(argument, sources)]  # which is refused
    listed = list(sources)
    if listed and all(isinstance(each, Mapping | Row) for each in listed):
        return [(argument, listed)]
    return [(f"{argument}[{number}]", each) for number, each in enumerate(listed)]


def _written(data: Any, folder: Path, argument: str) -> Path:
    if not isinstance(data, Mapping):
        return _write(data, folder / "rows.jsonl", argument)
    place = folder / "rows"
    place.mkdir()
    for name, rows in data.items():
        if not re.fullmatch(r"[\w-]+", str(name)):
            raise UserError(f"{argument}: parts must have names such as 'train', got {name!r}.")
        _write(rows, place / f"{name}.jsonl", f"{argument}[{name!r}]")
    return place


def _write(rows: Any, file: Path, argument: str) -> Path:
    with file.open("w", encoding="utf-8") as lines:
        for number, row in enumerate(_rows_of(rows, argument), 1):
            fields_of_row = row.to_json() if isinstance(row, Row) else row
            if not isinstance(fields_of_row, Mapping):
                raise UserError(
                    f"{argument} row {number} must be a dict of columns, got "
                    f"{type(row).__name__}: give {{'text': ...}} or {{'messages': [...]}}."
                )
            try:
                line = json.dumps(dict(fields_of_row), ensure_ascii=False, default=_plain)
            except (TypeError, ValueError) as error:
                raise UserError(f"{argument} row {number}: {error}.") from None
            lines.write(line + "\n")
    return file


def _rows_of(rows: Any, argument: str) -> Iterable[Any]:
    kind = type(rows).__module__.partition(".")[0]
    if kind == "datasets" and hasattr(rows, "with_format") and hasattr(rows, "to_dict"):
        # No column is decoded: one that holds pictures is refused by the reader, by name.
        batches = rows.with_format("arrow").iter(batch_size=1000)
        return (row for batch in batches for row in batch.to_pylist())
    if kind == "pandas" and hasattr(rows, "to_dict"):
        return rows.astype(object).where(rows.notna(), None).to_dict("records")
    if isinstance(rows, Iterable) and not isinstance(rows, str | bytes | Mapping):
        return rows
    raise UserError(
        f"{argument} must be a path, a list of dicts, a pandas.DataFrame, a datasets.Dataset or a "
        f"dict of these by part, got {type(rows).__name__}."
    )


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is no text, number, list or dict")


def renamed(value: Any, words: Callable[[str], str]) -> Any:
    """``value`` with every text in it as ``words`` makes it."""
    if isinstance(value, str):
        return words(value)
    if isinstance(value, list | tuple):
        new = [renamed(each, words) for each in value]
        return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)
    if isinstance(value, dict):
        return {renamed(key, words): renamed(each, words) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        held = {item.name: getattr(value, item.name) for item in fields(value) if item.init}
        changed = {
            name: new
            for name, each in held.items()
            if (new := renamed(each, words)) is not each and new
        }
        return replace(value, **changed) if changed else value
    return value
