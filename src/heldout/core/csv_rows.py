"""The rows of a csv text, strictly read, with the lines on which they stand."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class BrokenCsv(ValueError):
    """A row with broken quoting or a broken field; what follows cannot be told apart from it."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line  # where the row begins, counted from 1


@dataclass(frozen=True)
class CsvRow:
    """The cells of one row, none for an empty line; a quoted cell may run over several lines."""

    first_line: int  # counted from 1
    last_line: int
    cells: list[str]

    @property
    def is_blank(self) -> bool:
        """Whether no cell holds more than white space."""
        return not any(cell.strip() for cell in self.cells)


def csv_rows(lines: Iterable[str], delimiter: str = ",") -> Iterator[CsvRow]:
    """All rows, the header among them. Raises BrokenCsv.

    ``lines`` is a file that was opened with ``newline=""``, or the like.
    """
    limit = csv.field_size_limit(2**31 - 1)  # the module's own limit is shorter than documents
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            first_line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise BrokenCsv(first_line, str(error)) from None
            yield CsvRow(first_line, reader.line_num, cells)
    finally:
        csv.field_size_limit(limit)
