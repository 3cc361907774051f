"""A file's bytes as they were before it was packed: gzip, bzip2, xz, Zstandard, or zip of one file.

What a file is packed with is told by its first bytes, whatever it is called.
"""

import bz2
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.data.record import Broken

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
}
_WORDS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard", ".zip": "zip"}
_FREE = 64 * 2**20  # bytes that any file may unpack to
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, zstd.ZstdError)


def unpacked_name(path: Path) -> str:
    """The name in lower case, without the ending of a packed file."""
    name = path.name.lower()
    ending = next((ending for ending in PACKED if name.endswith(ending)), "")
    return name.removesuffix(ending)


def packing_of(path: Path) -> str:
    """The ending that stands for what a file is packed with; empty for a plain file.

    A file whose name says that it is packed counts as such, so that one that is not is an error.
    """
    with path.open("rb") as file:
        start = file.read(8)
    found = next((ending for magic, ending in _MAGIC.items() if start.startswith(magic)), "")
    named = next((ending for ending in PACKED if path.name.lower().endswith(ending)), "")
    return found or named


def first_bytes(path: Path, name: str, data: DataSection, most: int) -> bytes:
    """At most that many unpacked bytes, those before the damage in a damaged file."""
    found = bytearray()
    with open_unpacked(path, name, data) as file:
        try:
            while len(found) < most and (chunk := file.read1(most - len(found))):
                found += chunk
        except Broken:
            if not found:
                raise
    return bytes(found)


def packing_note(path: Path, name: str) -> str:
    """What to say of a file whose name does not tell how it is packed; mostly empty."""
    packing = packing_of(path)
    if not packing or path.name.lower().endswith(packing):
        return ""
    return f"{name} is a {_WORDS[packing]} file under another name: it was unpacked."


def open_unpacked(path: Path, name: str, data: DataSection) -> io.BufferedReader:
    """Bytes to be read from the start.

    Raises UserError for a zip file that does not hold one file of data. Reading raises Broken for a
    damaged file, and UserError where it unpacks to more than data.max_unpack_ratio times its size
    (the first 64 MiB are free): what so little tells takes the memory of very much.
    """
    packing = packing_of(path)
    if not packing:
        return path.open("rb")
    openers: dict[str, Callable[[Path], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": zstd.open,
        ".zip": lambda path: _member(path, name),
    }
    try:
        inner = openers[packing](path)
    except _DAMAGED as error:
        raise _broken(packing, error) from None
    unpacked = _Unpacked(inner, packing, Bound(name, path.stat().st_size, data))
    return io.BufferedReader(unpacked, 2**18)


def first_name(path: Path) -> str:
    """Name of the first file in a zip file; empty where there is none that can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return next((each.filename for each in _members(archive)), "")
    except _DAMAGED:
        return ""


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [
        each
        for each in archive.infolist()
        if not each.is_dir() and not each.filename.startswith(("__MACOSX/", "."))
    ]


def _member(path: Path, name: str) -> Any:
    archive = zipfile.ZipFile(path)
    members = _members(archive)
    if len(members) != 1:
        archive.close()
        names = ", ".join(each.filename for each in members[:4])
        more = ", ..." if members[4:] else ""
        raise UserError(
            f"{name} must hold one file, got {len(members)} ({names}{more}): unpack it and give "
            "the folder."
        )
    if members[0].flag_bits & 1:
        raise UserError(f"{name} is encrypted: unpack it and give the file.")
    return archive.open(members[0])


def _broken(packing: str, error: Exception) -> Broken:
    return Broken("truncated", f"the {_WORDS[packing]} file ends too early or is damaged ({error})")


class Bound:
    """What a file of ``size`` bytes unpacks to, counted."""

    def __init__(self, name: str, size: int, data: DataSection):
        self.name, self.ratio = name, data.max_unpack_ratio
        self.most = max(_FREE, self.ratio * size)
        self.num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Count some more. Raises UserError beyond what data.max_unpack_ratio allows."""
        self.num_bytes += num_bytes
        if self.num_bytes > self.most:
            raise UserError(
                f"{self.name} unpacks to more than {self.ratio} times its size: if that is meant, "
                f"raise --set data.max_unpack_ratio={self.ratio}. Nothing was written."
            )


class _Unpacked(io.RawIOBase):
    """The unpacked bytes, counted."""

    def __init__(self, inner: io.BufferedIOBase, packing: str, bound: Bound):
        self.inner, self.packing, self.bound = inner, packing, bound

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self.inner.read1(len(buffer))  # what stands before damage is handed out
        except _DAMAGED as error:
            raise _broken(self.packing, error) from None
        buffer[: len(chunk)] = chunk
        self.bound.add(len(chunk))
        return len(chunk)

    def close(self) -> None:
        self.inner.close()
        super().close()
