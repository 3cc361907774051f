"""Files, folders and Hub data sets as tables of records."""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heldout.core.errors import UserError
from heldout.data.files import READERS, Reader, Record, decode


@dataclass(frozen=True)
class Table:
    """All records of a source, never none."""

    name: str  # as the user gave it
    records: list[Record]
    sha256: str  # of the bytes; a folder: of names and bytes; a Hub data set: of its rows as JSON
    file_is_document: bool = False  # a folder of texts

    @property
    def columns(self) -> list[str]:
        """Names of all fields, in the order of first appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record.fields))


def read_table(source: str | Path) -> Table:
    """Read a file, a folder, or a Hub data set (``name``, ``name:split``, ``name:config:split``).

    The whole source is held in memory. In a folder all files are read, subfolders too, in the order
    of their names; hidden files and files of unknown kinds are passed over; of texts, each file is
    one document. Raises UserError, one line that names the file and line, for whatever cannot be
    read.
    """
    name = str(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, name)
    if path.exists():
        data = _bytes(path, name)
        records = list(_reader(path, name)(_unpack(data, path, name), name))
        return _table(name, records, hashlib.sha256(data).hexdigest())
    if is_hub_name(name):
        return _read_hub(name)
    raise UserError(f"{name}: no such file or folder.")


def _table(name: str, records: list[Record], sha256: str, file_is_document: bool = False) -> Table:
    if not records:
        raise UserError(f"{name} is empty: there are no rows in it.")
    return Table(name, records, sha256, file_is_document)


# Files


def suffix_of(path: Path) -> str:
    """The ending that tells the kind of a file, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _reader(path: Path, name: str) -> Reader:
    suffix = suffix_of(path)
    if suffix not in READERS:
        kind = f"the ending {suffix!r}" if suffix else "no ending"
        raise UserError(
            f"{name} has {kind}: known are {', '.join(READERS)}, each also with .gz, a folder of "
            "them, or a data set's name on the Hub."
        )
    return READERS[suffix]


def _bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}.") from None


def _unpack(data: bytes, path: Path, name: str) -> bytes:
    if not path.name.lower().endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name} is not a whole gzip file: {error}.") from None


# Folders


def files_of_folder(folder: Path, name: str) -> list[Path]:
    """Files with a known ending in the order of their names; UserError for none or a mixture."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and suffix_of(path) in READERS and not _is_hidden(path, folder)
    )
    texts = [path for path in files if suffix_of(path) == ".txt"]
    if not files:
        raise UserError(f"Folder {name} holds no file with a known ending: {', '.join(READERS)}.")
    if texts and len(texts) < len(files):
        other = next(path for path in files if suffix_of(path) != ".txt")
        raise UserError(
            f"Folder {name} holds both texts ({texts[0].name}) and tables ({other.name}): keep one "
            "kind in it, or name the file."
        )
    if not texts:
        _refuse_parts(files, name)
    return files


def _read_folder(folder: Path, name: str) -> Table:
    files = files_of_folder(folder, name)
    digest = hashlib.sha256()
    records: list[Record] = []
    for path in files:
        inside = path.relative_to(folder).as_posix()
        full_name = f"{name.rstrip('/')}/{inside}"
        data = _bytes(path, full_name)
        digest.update(f"{inside}\0{len(data)}\0".encode())
        digest.update(data)
        records += _records_of_file(_unpack(data, path, full_name), path, full_name, inside)
    return _table(name, records, digest.hexdigest(), file_is_document=suffix_of(files[0]) == ".txt")


def _records_of_file(data: bytes, path: Path, name: str, inside: str) -> Iterator[Record]:
    if suffix_of(path) == ".txt":
        text = decode(data, name).replace("\r\n", "\n").strip("\n")
        yield Record({"text": text}, name, inside)
    else:
        for record in _reader(path, name)(data, name):
            yield Record(record.fields, record.where, inside)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _refuse_parts(files: list[Path], name: str) -> None:
    """Reading a ready-made split as one table would undo it without a word."""
    train = [path for path in files if re.match(r"train\b|train_", path.name)]
    held_out = [path for path in files if re.match(_HELD_OUT_NAME, path.name)]
    if train and held_out:
        key = "test" if held_out[0].name.startswith("test") else "validation"
        raise UserError(
            f"Folder {name} holds parts of a split ({train[0].name}, {held_out[0].name}): give "
            f"{train[0]} as the data and --set data.{key}={held_out[0]}."
        )


_HELD_OUT_NAME = r"(test|validation|valid|val|dev|eval)(\b|_)"


# The Hub

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+){0,2}")


def is_hub_name(name: str) -> bool:
    """Whether a source that is no file may be a data set's name."""
    return bool(_HUB_NAME.fullmatch(name)) and suffix_of(Path(name)) not in READERS


def _read_hub(name: str) -> Table:
    import datasets

    repository, *rest = name.split(":")
    split = rest[-1] if rest else "train"
    config = rest[0] if len(rest) == 2 else None
    try:
        rows = datasets.load_dataset(repository, config, split=split)
        records = [Record(row, f"{name} row {number}") for number, row in enumerate(rows, 1)]
    except Exception as error:  # the library raises whatever its many readers raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise UserError(
            f"{name}: no such file or folder, and it could not be read from the Hub ({reason})."
        ) from None
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.fields, sort_keys=True, default=str).encode() + b"\n")
    return _table(name, records, digest.hexdigest())
