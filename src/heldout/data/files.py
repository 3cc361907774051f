"""One file as records with their faults, by the ending of its name.

What a single ``.txt`` file means: it is divided at lines that hold only ``<|endoftext|>`` where it
has any, else at blank lines; where there are none, each line is a document.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heldout.core.csv_rows import BrokenCsv, CsvRow, csv_rows
from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.data.encoding import MIB, TextFile, first_undecoded, is_decoded, too_long
from heldout.data.json_rows import json_records
from heldout.data.record import Broken, Fault, Read, Record
from heldout.data.unpack import (
    PACKED,
    Bound,
    first_name,
    open_unpacked,
    packing_note,
    packing_of,
    unpacked_name,
)


@dataclass(frozen=True)
class DataFile:
    """A file to be read, and how."""

    path: Path
    name: str  # as errors call it
    data: DataSection  # its encoding and limits are used
    part_key: str = ""  # of a JSON object of parts, the one whose list is read
    is_document: bool = False  # a text that is one row
    say: Callable[[str], None] = lambda note: None  # told what was recognized, each time it is read

    def text(self, only_unicode: bool = False) -> TextFile:
        """Its characters; what they were taken for is said."""
        found = TextFile(self.path, self.name, self.data, only_unicode)
        if found.note:
            self.say(found.note)
        return found


def suffix_of(path: Path) -> str:
    """The ending that tells the kind of a file, without that of a packed one.

    Where a zip file's own name tells none, that of the file in it.
    """
    suffix = Path(unpacked_name(path)).suffix
    if suffix not in READERS and path.suffix.lower() == ".zip":
        return Path(first_name(path)).suffix.lower() or suffix
    return suffix


def records_of_file(file: DataFile) -> Iterator[Read]:
    """All records of a file; after a fault it goes on where that is possible.

    Raises UserError for a file that cannot be opened, whose kind is not known, or that is too much.
    """
    reader = _document if file.is_document else _reader(file)
    try:
        if note := packing_note(file.path, file.name):
            file.say(note)
        yield from reader(file)
    except Broken as broken:
        where = f"{file.name} line {broken.line}" if broken.line else file.name
        yield Record({}, where), broken.fault
    except OSError as error:
        if error.strerror is None:
            raise
        raise UserError(f"{file.name} cannot be read: {error.strerror}.") from None


def _reader(file: DataFile) -> Callable[[DataFile], Iterator[Read]]:
    suffix = suffix_of(file.path)
    if suffix not in READERS:
        raise UserError(
            f"{file.name} has {_ending(file.path, suffix)}: known are {', '.join(READERS)}, "
            f"each also with {', '.join(PACKED)}, a folder of them, or a data set's name on the "
            "Hub."
        )
    return READERS[suffix]


def _ending(path: Path, suffix: str) -> str:
    if suffix:
        return f"{suffix!r} as its ending"
    packed = path.suffix.lower()
    return f"no ending before {packed!r}" if packed in PACKED else "no ending"


def _json(file: DataFile) -> Iterator[Read]:
    return json_records(file.text(only_unicode=True), file.part_key)


# Tables of cells


def _csv(file: DataFile) -> Iterator[Read]:
    text = file.text()
    lines = _CellLines(text)
    first = next((line for line in lines if line.strip("\ufeff\r\n")), "")
    usual = "\t" if suffix_of(file.path) == ".tsv" else ","
    delimiter = _named_delimiter(first)
    if delimiter:
        first = next(lines, "")
    else:
        delimiter = _delimiter(first, usual)
    if delimiter != usual:
        words = {"\t": "tabs"}.get(delimiter, repr(delimiter))
        file.say(f"{file.name}: its columns are separated by {words}.")
    offset = lines.num_lines - 1
    lines.put_back(first)
    try:
        yield from _records_of_csv(csv_rows(lines, delimiter), text, delimiter, lines, offset)
    except BrokenCsv as error:
        where = f"{file.name} line {error.line + offset}"
        yield Record({}, where), Fault("format", f"broken quoting or field ({error})")


class _CellLines:
    """Lines of a csv file, bounded within one row: a quote that never ends would take them all."""

    def __init__(self, text: TextFile):
        self.text, self.lines = text, text.lines(newline="")
        self.num_lines = self.num_characters = 0
        self.waiting: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.waiting:
            return self.waiting.pop()
        line = next(self.lines)
        self.num_lines += 1
        self.num_characters += len(line)
        if self.num_characters > self.text.data.max_row_mib * MIB:
            raise too_long(f"{self.text.name} line {self.num_lines}", self.text.data)
        return line

    def put_back(self, line: str) -> None:
        if line:
            self.waiting.append(line)


def _named_delimiter(line: str) -> str:
    """Of Excel's first line ``sep=;``; empty for any other line."""
    words = line.strip("\ufeff\r\n")
    return words[4:] if words.lower().startswith("sep=") and len(words) == 5 else ""


def _delimiter(header: str, usual: str) -> str:
    """The one that divides the header, outside of quotes, into the most columns."""
    plain = "".join(header.split('"')[::2])
    counts = {each: plain.count(each) for each in (usual, ",", ";", "\t", "|")}
    return max(counts, key=lambda each: (counts[each], each == usual))


def _records_of_csv(
    rows: Iterator[CsvRow], text: TextFile, delimiter: str, lines: _CellLines, offset: int
) -> Iterator[Read]:
    header: list[str] | None = None
    for row in rows:
        lines.num_characters = 0
        line = row.first_line + offset
        where = f"{text.name} line {line}"
        if row.is_blank:
            continue
        if header is None:
            header = _header(row, where)
        elif len(row.cells) != len(header):
            words = f"{len(row.cells)} fields where the header has {len(header)}"
            if len(row.cells) == 1:
                words = f"1 field where the header has {len(header)}"
            step = f"Text that holds the separator {delimiter!r} needs double quotes around it."
            if len(row.cells) < len(header):
                step = f"A field without text still needs its separator {delimiter!r}."
            yield Record({}, where), Fault("format", words, step)
        elif not all(map(is_decoded, row.cells)):
            found = first_undecoded("".join(row.cells))
            assert found is not None
            yield Record({}, where), text.undecoded(line, found[0]).fault
        else:
            yield Record(dict(zip(header, row.cells, strict=True)), where), None


def _header(row: CsvRow, where: str) -> list[str]:
    # Tables are often saved with a column of row numbers that has no name.
    header = [cell.strip() or f"column {number}" for number, cell in enumerate(row.cells, 1)]
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if twice:
        raise UserError(
            f"{where}: column {twice[0]!r} is there twice: rename one of the two. Nothing was "
            "written."
        )
    return header


def _parquet(file: DataFile) -> Iterator[Read]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.path.stat().st_size:
        return
    number = 0
    bound = Bound(file.name, file.path.stat().st_size, file.data)
    try:
        with _seekable(file) as opened, pq.ParquetFile(opened) as table:
            for batch in table.iter_batches(batch_size=1000):
                bound.add(batch.nbytes)
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{file.name} row {number}"), None
    except (pa.ArrowException, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        yield _cut(file, number, Fault("truncated", f"not a whole Parquet file ({reason})"))


def _arrow(file: DataFile) -> Iterator[Read]:
    """The format of files or of streams, as ``datasets`` keeps its tables."""
    import pyarrow as pa

    number = 0
    try:
        with _seekable(file) as raw, pa.PythonFile(raw, mode="r") as opened:
            is_file = opened.read(6) == b"ARROW1"
            opened.seek(0)
            reader = pa.ipc.open_file(opened) if is_file else pa.ipc.open_stream(opened)
            batches = (
                (reader.get_batch(each) for each in range(reader.num_record_batches))
                if is_file
                else reader
            )
            for batch in batches:
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{file.name} row {number}"), None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        yield _cut(file, number, Fault("truncated", f"not a whole Arrow file ({reason})"))


def _cut(file: DataFile, number: int, fault: Fault) -> Read:
    return Record({}, f"{file.name} row {number + 1}" if number else file.name), fault


def _seekable(file: DataFile) -> io.BufferedIOBase:
    if not packing_of(file.path):
        return file.path.open("rb")
    with open_unpacked(file.path, file.name, file.data) as opened:
        return io.BytesIO(opened.read())


# Texts


def _text(file: DataFile) -> Iterator[Read]:
    """Documents of a single text file."""
    source = file.text()
    lines = [line.rstrip("\r\n") for line in source.lines()]
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if any(line.strip() == END_OF_TEXT for line in lines):
        divides = [line.strip() == END_OF_TEXT for line in lines]
    elif filled and filled[-1] - filled[0] >= len(filled):  # a blank line in between
        divides = [not line.strip() for line in lines]
    else:
        for i in filled:
            yield _text_record(source, lines[i].strip(), i + 1)
        return
    start = 0
    for end in [*(number for number, divide in enumerate(divides) if divide), len(lines)]:
        first = next((number for number in range(start, end) if lines[number].strip()), None)
        if first is not None:
            text = "\n".join(lines[first:end]).rstrip()
            yield _text_record(source, text, first + 1)
        start = end + 1


def _document(file: DataFile) -> Iterator[Read]:
    source = file.text()
    lines = [line.rstrip("\r\n") for line in source.lines()]
    yield _text_record(source, "\n".join(lines).strip("\n"))


def _text_record(source: TextFile, text: str, line: int = 0) -> Read:
    """``line``: where the text begins, 0 where it is the whole file."""
    where = f"{source.name} line {line}" if line else source.name
    if len(text) > source.data.max_row_mib * MIB:
        raise too_long(where, source.data)
    if found := first_undecoded(text):
        broken_line = (line or 1) + text.count("\n", 0, found.start())
        fault = source.undecoded(broken_line, found[0]).fault
        return Record({}, f"{source.name} line {broken_line}"), fault
    return Record({"text": text}, where), None


READERS: dict[str, Callable[[DataFile], Iterator[Read]]] = {
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".txt": _text,
}

END_OF_TEXT = "<|endoftext|>"
