"""Files, folders and Hub data sets as records: as a table, or one at a time with their faults."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.core.row import Part, Row
from heldout.data.files import READERS, DataFile, records_of_file, suffix_of
from heldout.data.layout import Layout, PartFiles, Wanted, find_layout
from heldout.data.preference import (
    Preference,
    chosen_alone,
    is_bad,
    label_column,
    preference_of,
    refused_label,
    refused_pairs,
)
from heldout.data.record import Fault, Read, Record

LOOKED_AT = 200  # good records that decide what a source is
_DEFAULT = DataSection()


@dataclass(frozen=True)
class Table:
    """All records of a source, never none."""

    name: str  # as the user gave it
    records: list[Record]
    sha256: str  # of the bytes; a folder: of names and bytes; a Hub data set: of its rows as JSON
    file_is_document: bool = False  # a folder of texts
    notes: tuple[str, ...] = ()  # what was recognized, and which files were not read
    used: frozenset[str] = frozenset()  # columns that have told already what they tell

    @property
    def columns(self) -> list[str]:
        """Names of all fields, in the order of first appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record.fields))


class Records:
    """The records of one part of a source; can be gone through several times.

    ``part`` names it where the source holds a split that is ready, or says what for: to train on,
    or to measure on (the test part, else validation). Raises UserError for a source that is not
    there, cannot be opened, has no rows, or has pairs of answers that data.learn_chosen does not
    ask for; ``columns`` as the user maps them.
    """

    def __init__(
        self,
        source: str | Path,
        data: DataSection = _DEFAULT,
        part: Part | Wanted = "train",
        columns: Mapping[str, str] | None = None,
    ):
        self.name = str(source)
        self.data = data
        self._hub_rows: list[dict[str, Any]] = []
        self.layout: Layout | None = find_layout(source, data)
        if self.layout is None and not is_hub_name(self.name):
            raise UserError(f"{self.name}: no such file or folder.")
        self.files: PartFiles | None = None
        self.part: Part | Literal[""] = ""  # of a split that is ready
        if self.layout is not None:
            wanted = self.layout.part_for(part)
            self.files = self.layout.parts[wanted]
            self.part = wanted if self.layout.is_split else ""
        self.rows_by_file: Counter[str] = Counter()  # of the last time they were gone through
        self.num_bad = 0  # answers that were left out, of that time
        self._said: dict[str, None] = {}
        self._columns = dict(columns or {})
        self._preference: Preference = ""
        self._label = ""
        self.head = self._first_records()
        self._preference = preference_of(self.head, self._columns)
        self._label = label_column(self.head) if self._preference == "labels" else ""
        if self._preference == "pairs" and not data.learn_chosen:
            raise refused_pairs(self.name)
        if self._preference:
            self.head = self._first_records()

    @property
    def file_is_document(self) -> bool:
        """Whether this is a folder of texts."""
        return self.files is not None and self.files.kind == "texts"

    def notes(self) -> list[str]:
        """What was recognized so far, which files are read as what, and which are not."""
        found = [] if self.layout is None else self.layout.notes()
        if len(self.rows_by_file) > 1 and not self.file_is_document:
            files = [f"{file} ({num:,})" for file, num in self.rows_by_file.items()]
            more = f" and {len(files) - 4:,} more" if len(files) > 5 else ""
            shown = ", ".join(files[: 4 if more else 5])
            found.append(f"{self.name}: rows of {shown}{more}.")
        if self._preference == "pairs":
            found.append(
                f"{self.name}: the chosen answers are learned, the rejected ones left out."
            )
        if self.num_bad:
            found.append(f"{self.name}: {self.num_bad:,} answers are bad by their label: left out.")
        return [*found, *self._said]

    def __iter__(self) -> Iterator[Read]:
        self.rows_by_file.clear()
        self.num_bad = 0
        for record, fault in self._records():
            self.rows_by_file[record.file] += 1
            if fault is None and self._preference == "pairs":
                yield _chosen(record, self._columns)
            elif fault is None and self._label and is_bad(record, self._label):
                if self.data.learn_chosen:
                    self.num_bad += 1
                    continue
                yield record, Fault("format", refused_label(self._label))
            else:
                yield record, fault

    @property
    def used(self) -> set[str]:
        """Columns that tell which answers are good."""
        return {"chosen", "rejected"} if self._preference == "pairs" else {self._label} - {""}

    def _first_records(self) -> list[Record]:
        found = list(itertools.islice((r for r, fault in self if fault is None), LOOKED_AT))
        if found:
            return found
        first = next((told for told in self if told[1]), None)
        name = f"{self.name} ({self.part})" if self.part else self.name
        if first is None and self.num_bad:
            raise UserError(f"{name}: every answer ({self.num_bad:,}) is bad by its label.")
        if first is None:
            raise UserError(f"{name} is empty: there are no rows in it.")
        raise UserError(words_of(first))

    def sha256(self) -> str:
        """Of a file's bytes, or of the names and bytes of a folder; empty for a Hub data set."""
        if self.files is None:
            return ""
        if self.files.folder is None:
            return _sha256(self.files.files[0])
        digest = hashlib.sha256()
        for path in self.files.files:
            inside = self.files.inside(path)
            digest.update(f"{inside}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()

    def _records(self) -> Iterator[Read]:
        if self.files is None:
            if not self._hub_rows:
                self._hub_rows, others = _hub_rows(self.name)
                if others:
                    self._said[f"Not read in {self.name}: {', '.join(others)}."] = None
            for number, fields in enumerate(self._hub_rows, 1):
                yield Record(fields, f"{self.name} row {number}"), None
        elif self.files.kind == "saved":
            yield from _saved_records(self.files)
        else:
            for path in self.files.files:
                yield from self._of_file(self.files, path)

    def _of_file(self, files: PartFiles, path: Path) -> Iterator[Read]:
        inside = files.inside(path)
        file = DataFile(
            path,
            files.full_name(path),
            self.data,
            files.key,
            is_document=files.kind == "texts",
            say=lambda note: self._said.setdefault(note),
        )
        for record, fault in records_of_file(file):
            fields = record.fields
            if files.convert is not None and fault is None:
                fields = files.convert(fields)
            if fields.keys() >= _OWN_KEYS:
                fields = _as_written_now(fields)
            if inside or fields is not record.fields:
                record = record._replace(fields=fields, file=inside)
            yield record, fault


_OWN_KEYS = {"index", "messages", "group", "source"}


def _as_written_now(fields: dict[str, Any]) -> dict[str, Any]:
    """A row of an older run, in which texts and prompts are messages too."""
    turns = fields["messages"]
    first = turns[0] if isinstance(turns, list) and turns else None
    if isinstance(first, dict) and first.get("role") in ("text", "prompt"):
        return Row.from_json(fields).to_json()
    return fields


def _chosen(record: Record, columns: Mapping[str, str]) -> Read:
    try:
        return chosen_alone(record, columns), None
    except UserError as error:
        words = str(error).removeprefix(f"{record.where}: ").removesuffix(" Nothing was written.")
        return record, Fault("format", words.removesuffix("."))


def words_of(read: Read) -> str:
    """What is wrong with a record, as a sentence that says where."""
    record, fault = read
    assert fault is not None
    step = f" {fault.next_step}" if fault.next_step else ""
    return f"{record.where}: {fault.message}.{step}"


def read_table(
    source: str | Path,
    data: DataSection = _DEFAULT,
    part: Part | Wanted = "train",
    columns: Mapping[str, str] | None = None,
) -> Table:
    """Read a file, a folder, or a Hub data set (``name``, ``name:split``, ``name:config:split``).

    All rows are held in memory. ``part`` and ``columns`` as in ``Records``. Raises UserError, one
    line that names the file and line, for the first fault and for whatever cannot be read.
    """
    found = Records(source, data, part, columns)
    records = []
    for record, fault in found:
        if fault is not None:
            raise UserError(words_of((record, fault)))
        records.append(record)
    sha256 = found.sha256() or _sha256_of_rows(records)
    return Table(
        found.name,
        records,
        sha256,
        found.file_is_document,
        tuple(found.notes()),
        frozenset(found.used),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_rows(records: list[Record]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.fields, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


# What the datasets library reads

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+){0,2}")


def is_hub_name(name: str) -> bool:
    """Whether a source that is no file may be a data set's name."""
    return bool(_HUB_NAME.fullmatch(name)) and suffix_of(Path(name)) not in READERS


def _hub_rows(name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a split, and the other splits where the name has not chosen one."""
    import datasets

    repository, *rest = name.split(":")
    split = rest[-1] if rest else "train"
    config = rest[0] if len(rest) == 2 else None
    try:
        rows = datasets.load_dataset(repository, config, split=split)
        known = getattr(getattr(rows, "info", None), "splits", None) or {}
        others = [] if rest else [f"{name}:{other}" for other in known if other != split]
        return list(rows), others
    except Exception as error:  # the library raises whatever its many readers raise
        raise UserError(
            f"{name}: no such file or folder, and it could not be read from the Hub "
            f"({_reason(error)})."
        ) from None


def _saved_records(files: PartFiles) -> Iterator[Read]:
    """Rows of ``Dataset.save_to_disk``, in the order of the data set; no column is decoded."""
    import datasets

    assert files.folder is not None
    number = 0
    try:
        saved = datasets.load_from_disk(str(files.folder)).with_format("arrow")
        for batch in saved.iter(batch_size=1000):
            for fields in batch.to_pylist():
                number += 1
                yield Record(fields, f"{files.name} row {number}"), None
    except Exception as error:  # as above
        fault = Fault("truncated", f"not a whole data set of datasets ({_reason(error)})")
        yield Record({}, f"{files.name} row {number + 1}"), fault


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
