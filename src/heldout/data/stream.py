"""Rows of a source one at a time, with what is wrong with them, as far as they can be read.

``read_rows`` is for training and stops at the first fault; this is for looking at data. Lines,
csv and Parquet are read in small pieces; json, txt and each file of a folder of texts at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.core.row import Part, Row
from heldout.data.columns import choose_format, unused_columns
from heldout.data.layout import Wanted
from heldout.data.messages import Faults, Format, messages, template_arguments_of, tools_of
from heldout.data.preference import refuse_media
from heldout.data.read import Records, Table
from heldout.data.record import Fault, FaultKind, Record


@dataclass(slots=True)  # frozen ones take four times as long to make
class StreamedRow:
    """One row of the source; ``row`` is None where ``fault`` says why."""

    index: int  # counted from 0 over all rows, also those that cannot be read
    where: str
    row: Row | None
    fault: Fault | None
    fields: dict[str, Any]  # as in the source; empty where they could not be read


class RowStream:
    """Rows of a file, a folder or a Hub data set; can be gone through several times.

    ``columns`` and ``group`` as in ``read_rows``, ``data`` and ``part`` as in ``Records``. Raises
    UserError for a source that is not there, has no rows, or fits no format.
    """

    def __init__(
        self,
        source: str | Path,
        columns: Mapping[str, str] | None = None,
        group: str = "",
        data: DataSection | None = None,
        part: Part | Wanted = "train",
    ):
        self.name = str(source)
        self.group = group
        self.records = Records(source, data or DataSection(), part, columns)
        table = Table(self.name, self.records.head, "", used=frozenset(self.records.used))
        self.format: Format
        self.format, self.columns = choose_format(table, dict(columns or {}))
        self._unused = unused_columns(table, self.format, self.columns, group)
        if group and group not in table.columns:
            raise UserError(
                f"data.group: {self.name} has no column {group}; there are "
                f"{', '.join(table.columns[:12])}."
            )

    @property
    def ready_part(self) -> str:
        """The part of a split that is ready, where the source holds one."""
        return self.records.part

    @property
    def label(self) -> str:
        """The name of the source, with its part where it holds several."""
        return f"{self.name} ({self.ready_part})" if self.ready_part else self.name

    @property
    def texts_of_folder(self) -> bool:
        """Whether each file is one document."""
        return self.records.file_is_document

    def notes(self) -> list[str]:
        """What was recognized, and what is not used; whole once all rows were gone through."""
        return [*self.records.notes(), *self._unused]

    def __iter__(self) -> Iterator[StreamedRow]:
        for index, (record, fault) in enumerate(self.records):
            if fault is not None:
                yield StreamedRow(index, record.where, None, fault, record.fields)
                continue
            row, fault = self._row(index, record)
            yield StreamedRow(index, record.where, row, fault, record.fields)

    def rows(self) -> Iterator[Row]:
        """Those that can be trained on."""
        return (item.row for item in self if item.row is not None)

    def sha256(self) -> str:
        """Of a file's bytes, or a folder's names and bytes; empty for a Hub data set."""
        return self.records.sha256()

    def _row(self, index: int, record: Record) -> tuple[Row | None, Fault | None]:
        faults = Faults(self.name)
        try:
            if self.format != "text":
                refuse_media(record)
            turns = messages(record, self.format, self.columns, faults)
            tools: tuple[dict[str, Any], ...] = ()
            arguments: dict[str, Any] = {}
            if self.format != "text":  # which has no such columns
                tools = tools_of(record, self.format, self.columns)
                arguments = template_arguments_of(record, self.columns)
        except UserError as error:
            text = str(error).removesuffix(" Nothing was written.").removesuffix(".")
            kind: FaultKind = "encoding" if "lone surrogate" in text else "format"
            return None, Fault(kind, text.removeprefix(record.where).lstrip(": "))
        for reason in faults.places:
            return None, Fault("empty" if "empty" in reason else "format", reason)
        value = record.fields.get(self.group) if self.group else None
        own = record.file if self.texts_of_folder else f"row-{index}"
        group = own if value in (None, "") else str(value)
        source = record.fields.get(self.columns.get("source", ""))
        name = record.file if source in (None, "") else str(source)
        return Row(index, turns, group, name, tools, record.where, arguments), None


def nothing_to_train_on(num_rows: int, where: str, fault: str) -> UserError:
    """The error for a source without a good row; ``where`` and ``fault`` are of its first one."""
    return UserError(
        f"{where}: {fault}. No row can be trained on, of {num_rows:,}. Nothing was written."
    )
