"""The bytes of one file as records: a dict of fields and where it was read.

What a single ``.txt`` file means: it is divided at lines that hold only ``<|endoftext|>`` where it
has any, else at blank lines; where there are none, each line is a document.
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from heldout.core.csv_rows import BrokenCsv, CsvRow, csv_rows
from heldout.core.errors import UserError


@dataclass(frozen=True)
class Record:
    """One row as it stands in its source."""

    fields: dict[str, Any]
    where: str  # as in "data/train.jsonl line 37": how errors name it
    file: str = ""  # name inside the folder that was read; empty for a single file


def decode(data: bytes, name: str) -> str:
    """UTF-8 with or without a byte order mark, or UTF-16 with one."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, words = "utf-16", "UTF-16, as its first bytes say"
    else:
        encoding, words = "utf-8-sig", "UTF-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name} line {line}: byte 0x{data[error.start]:02x} is not {words}. Save the file as "
            "UTF-8."
        ) from None


def _read_json_lines(data: bytes, name: str) -> Iterator[Record]:
    return _json_lines(decode(data, name), name)


def _json_lines(text: str, name: str) -> Iterator[Record]:
    # Not splitlines: a JSON string may hold U+2028, which is no line end here.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{name} line {number}"
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where}: {_not_json(error)}. {_ONE_OBJECT}") from None
            yield Record(_object(fields, where), where)


def _read_json(data: bytes, name: str) -> Iterator[Record]:
    """A list of objects, the same under the key ``data``, or JSON lines in spite of the name."""
    text = decode(data, name)
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _json_lines(text, name)
            return
        raise UserError(f"{name} line {error.lineno}: {_not_json(error)}.") from None
    except ValueError as error:
        raise UserError(f"{name}: {_not_json(error)}.") from None
    if isinstance(value, dict):
        value = value.get("data", [value])  # one object alone is JSON lines of one line
    if not isinstance(value, list):
        raise UserError(
            f'{name} must hold a list of objects, or {{"data": [...]}}, got {type_words(value)}.'
        )
    for number, fields in enumerate(value, 1):
        where = f"{name} row {number}"
        yield Record(_object(fields, where), where)


def _object(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise UserError(f"{where}: a row must be an object, got {type_words(fields)}.")
    return fields


def _not_json(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}, column {error.colno})"
    return f"not JSON ({error})"


def type_words(value: Any) -> str:
    """What a JSON value is, in words for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kinds, words in ((str, "a string"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kinds):
            return words
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"


def _read_csv(data: bytes, name: str, delimiter: str = ",") -> Iterator[Record]:
    rows = csv_rows(io.StringIO(decode(data, name), newline=""), delimiter)
    try:
        yield from _records_of_csv(rows, name, delimiter)
    except BrokenCsv as error:
        raise UserError(f"{name} line {error.line}: broken quoting or field ({error}).") from None


def _records_of_csv(rows: Iterator[CsvRow], name: str, delimiter: str) -> Iterator[Record]:
    header: list[str] | None = None
    for row in rows:
        where = f"{name} line {row.first_line}"
        if row.is_blank:
            continue
        if header is None:
            header = [cell.strip() for cell in row.cells]
            twice = sorted({cell for cell in header if header.count(cell) > 1})
            if twice:
                raise UserError(f"{where}: column {twice[0]!r} is there twice.")
        elif len(row.cells) != len(header):
            raise UserError(
                f"{where}: {len(row.cells)} fields where the header has {len(header)}. "
                f"Text that holds the separator {delimiter!r} needs double quotes around it."
            )
        else:
            yield Record(dict(zip(header, row.cells, strict=True)), where)


def _read_tsv(data: bytes, name: str) -> Iterator[Record]:
    return _read_csv(data, name, "\t")


def _read_parquet(data: bytes, name: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(data)).to_pylist() if data else []
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{name} is not a whole Parquet file: {reason}.") from None
    for number, fields in enumerate(rows, 1):
        yield Record(fields, f"{name} row {number}")


def read_text(data: bytes, name: str) -> Iterator[Record]:
    """Documents of a single text file."""
    lines = decode(data, name).replace("\r\n", "\n").split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if any(line.strip() == END_OF_TEXT for line in lines):
        divides = [line.strip() == END_OF_TEXT for line in lines]
    elif filled and filled[-1] - filled[0] >= len(filled):  # a blank line in between
        divides = [not line.strip() for line in lines]
    else:
        yield from (Record({"text": lines[i].strip()}, f"{name} line {i + 1}") for i in filled)
        return
    start = 0
    for end in [*(number for number, divide in enumerate(divides) if divide), len(lines)]:
        first = next((number for number in range(start, end) if lines[number].strip()), None)
        if first is not None:
            text = "\n".join(lines[first:end]).rstrip()
            yield Record({"text": text}, f"{name} line {first + 1}")
        start = end + 1


Reader = Callable[[bytes, str], Iterator[Record]]

READERS: dict[str, Reader] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".txt": read_text,
}

_ONE_OBJECT = 'Each line must be one object, such as {"text": "..."}.'
END_OF_TEXT = "<|endoftext|>"
