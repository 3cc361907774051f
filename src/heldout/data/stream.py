"""Rows of a source one at a time, with what is wrong with them, as far as they can be read.

``read_rows`` is for training and stops at the first fault; this is for looking at data. Lines,
csv and Parquet are read in small pieces; json, txt and each file of a folder of texts at once.
"""

import gzip
import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from heldout.core.csv_rows import BrokenCsv, CsvRow, csv_rows
from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.data.columns import choose_format
from heldout.data.files import Record, decode, read_text, type_words
from heldout.data.messages import Faults, Format, messages
from heldout.data.read import Table, files_of_folder, is_hub_name, read_table, suffix_of

FaultKind = Literal["encoding", "not_json", "format", "empty", "truncated"]
_LOOKED_AT = 200  # good records that decide the format


@dataclass(frozen=True)
class Fault:
    """A row that cannot be trained on, and why."""

    kind: FaultKind
    message: str


@dataclass(frozen=True)
class StreamedRow:
    """One row of the source; ``row`` is None where ``fault`` says why."""

    index: int  # counted from 0 over all rows, also those that cannot be read
    where: str
    row: Row | None
    fault: Fault | None
    fields: dict[str, Any]  # as in the source; empty where they could not be read


class RowStream:
    """Rows of a file, a folder or a Hub data set; can be gone through several times.

    ``columns`` and ``group`` as in ``read_rows``. Raises UserError for a source that is not there,
    has no rows, or fits no format.
    """

    def __init__(
        self, source: str | Path, columns: Mapping[str, str] | None = None, group: str = ""
    ):
        self.name = str(source)
        self.path = Path(source).expanduser()
        self.group = group
        self.is_hub = not self.path.exists() and is_hub_name(self.name)
        if not self.path.exists() and not self.is_hub:
            raise UserError(f"{self.name}: no such file or folder.")
        self.texts_of_folder = self.path.is_dir() and any(
            suffix_of(path) == ".txt" for path in files_of_folder(self.path, self.name)
        )
        good = (r for r, fault in self._records() if fault is None)
        head = list(itertools.islice(good, _LOOKED_AT))
        if not head:
            first = next((fault for _, fault in self._records() if fault), None)
            reason = f" ({first.message})" if first else ""
            raise UserError(
                f"{self.name} is empty: there are no rows in it that can be read{reason}."
            )
        table = Table(self.name, head, "")
        self.format: Format
        self.format, self.columns = choose_format(table, dict(columns or {}))
        if group and group not in table.columns:
            raise UserError(
                f"--group {group}: {self.name} has no such column; there are "
                f"{', '.join(table.columns[:12])}."
            )

    def __iter__(self) -> Iterator[StreamedRow]:
        for index, (record, fault) in enumerate(self._records()):
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
        if self.is_hub:
            return ""
        if self.path.is_file():
            return _sha256(self.path)
        digest = hashlib.sha256()
        for path in files_of_folder(self.path, self.name):
            inside = path.relative_to(self.path).as_posix()
            digest.update(f"{inside}\0{_sha256(path)}\0".encode())
        return digest.hexdigest()

    def _row(self, index: int, record: Record) -> tuple[Row | None, Fault | None]:
        faults = Faults(self.name)
        try:
            turns = messages(record, self.format, self.columns, faults)
        except UserError as error:
            text = str(error).removesuffix(" Nothing was written.")
            kind: FaultKind = "encoding" if "lone surrogate" in text else "format"
            return None, Fault(kind, text.removeprefix(record.where).lstrip(": "))
        for reason in faults.places:
            return None, Fault("empty" if "empty" in reason else "format", reason)
        value = record.fields.get(self.group) if self.group else None
        own = record.file if self.texts_of_folder else f"row-{index}"
        group = own if value in (None, "") else str(value)
        source = record.fields.get(self.columns.get("source", ""))
        name = record.file if source in (None, "") else str(source)
        return Row(index, turns, group, name), None

    def _records(self) -> Iterator[tuple[Record, Fault | None]]:
        if self.is_hub:
            for record in read_table(self.name).records:
                yield record, None
        elif self.path.is_dir():
            for path in files_of_folder(self.path, self.name):
                inside = path.relative_to(self.path).as_posix()
                where = f"{self.name.rstrip('/')}/{inside}"
                for record, fault in self._file(path, where):
                    yield replace(record, file=inside), fault
        else:
            yield from self._file(self.path, self.name)

    def _file(self, path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
        readers = {
            ".jsonl": _lines,
            ".ndjson": _lines,
            ".csv": _csv,
            ".tsv": _csv,
            ".parquet": _parquet,
            ".txt": _document if self.texts_of_folder else _text,
        }
        try:
            yield from readers.get(suffix_of(path), _at_once)(path, name)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            fault = Fault("truncated", f"the gzip file ends too early or is damaged ({error})")
            yield Record({}, name), fault
        except OSError as error:
            if error.strerror is None:
                raise
            raise UserError(f"{name} cannot be read: {error.strerror}.") from None


def nothing_to_train_on(source: str, num_rows: int, where: str, fault: str) -> UserError:
    """The error for a source without a good row; ``where`` and ``fault`` are of its first one."""
    return UserError(f"{source}: none of its {num_rows} rows can be trained on: {where}: {fault}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _lines(path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
    with _open(path) as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        with _open(path) as file:
            text = decode(file.read(), name)
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _line(line, f"{name} line {number}", complete=True)
        return
    with _open(path) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            where = f"{name} line {number}"
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = raw[error.start]
                fault = Fault("encoding", f"byte 0x{byte:02x} is not UTF-8")
                yield Record({}, where), fault
                continue
            yield _line(line, where, complete=raw.endswith(b"\n"))


def _line(line: str, where: str, complete: bool) -> tuple[Record, Fault | None]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        if not complete and line.lstrip().startswith("{"):
            fault = Fault("truncated", f"the last line is cut off: not JSON ({reason})")
            return Record({}, where), fault
        return Record({}, where), Fault("not_json", f"not JSON ({reason})")
    except RecursionError:
        return Record({}, where), Fault("not_json", "not JSON (nested too deeply)")
    if not isinstance(fields, dict):
        got = type_words(fields)
        return Record({}, where), Fault("format", f"a row must be an object, got {got}")
    return Record(fields, where), None


def _csv(path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    with _open(path) as file:
        start = file.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with _open(path) as file:
        text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
        try:
            yield from _records_of_csv(csv_rows(text, delimiter), name)
        except BrokenCsv as error:
            fault = Fault("format", f"broken quoting or field ({error})")
            yield Record({}, f"{name} line {error.line}"), fault


def _records_of_csv(rows: Iterator[CsvRow], name: str) -> Iterator[tuple[Record, Fault | None]]:
    header: list[str] | None = None
    for row in rows:
        if row.is_blank:
            continue
        if header is None:
            header = [cell.strip() for cell in row.cells]
            continue
        where = f"{name} line {row.first_line}"
        if len(row.cells) != len(header):
            words = f"{len(row.cells)} fields where the header has {len(header)}"
            yield Record({}, where), Fault("format", words)
        elif any(
            "\udc80" <= c <= "\udcff" for cell in row.cells if not cell.isascii() for c in cell
        ):
            yield Record({}, where), Fault("encoding", "bytes that are not UTF-8")
        else:
            yield Record(dict(zip(header, row.cells, strict=True)), where), None


def _parquet(path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{name} row {number}"), None
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        fault = Fault("truncated", f"not a whole Parquet file ({reason})")
        yield Record({}, f"{name} row {number + 1}"), fault


def _at_once(path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
    """What cannot be read in pieces; UserError, with the known endings, for an unknown one."""
    for record in read_table(path).records:
        yield replace(record, where=record.where.replace(str(path), name, 1)), None


def _text(path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
    with _open(path) as file:
        data = file.read()
    for record in read_text(data, name):
        yield record, None


def _document(path: Path, name: str) -> Iterator[tuple[Record, Fault | None]]:
    with _open(path) as file:
        data = file.read()
    try:
        text = decode(data, name).replace("\r\n", "\n").strip("\n")
    except UserError as error:
        yield Record({}, name), Fault("encoding", str(error).removeprefix(name).strip())
        return
    yield Record({"text": text}, name), None
