"""Which characters the bytes of a text file stand for, and its lines one at a time.

UTF-8 is tried first. What is not UTF-8 may be GB18030, as Excel writes csv in Chinese, or
Windows-1252, as it writes it in Western languages; what was taken is said, and data.encoding
overrules it.
"""

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.data.record import Broken
from heldout.data.unpack import first_bytes, open_unpacked

SAMPLE = 4 * 2**20  # bytes that the encoding is told by
MIB = 2**20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SET_ENCODING = "Save the file as UTF-8, or name its encoding: --set data.encoding=NAME."


class TextFile:
    """The text of a file, packed or not, which can be gone through from its start several times.

    ``only_unicode``: as JSON is by its standard; Windows-1252 is then never taken.
    """

    def __init__(self, path: Path, name: str, data: DataSection, only_unicode: bool):
        self.path, self.name, self.data = path, name, data
        if data.encoding and not is_text_encoding(data.encoding):
            raise UserError(
                "data.encoding must be an encoding of text that Python knows, such as gb18030 or "
                f"cp1252, got {data.encoding!r}."
            )
        self.encoding, self.note = data.encoding, ""
        if not self.encoding:
            self.encoding = encoding_of(first_bytes(path, name, data, SAMPLE), only_unicode)
            if self.encoding in _WORDS:
                words = _WORDS[self.encoding]
                self.note = f"{name} is not UTF-8 and was read as {words}; data.encoding overrules."

    def open(self, newline: str = "\n") -> TextIO:
        """Bytes that are no characters become lone surrogates, see ``refuse_undecoded``."""
        raw = open_unpacked(self.path, self.name, self.data)
        encoding = "utf-8-sig" if self.encoding in ("utf-8", "utf8") else self.encoding
        return io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline=newline)

    def lines(self, newline: str = "\n") -> Iterator[str]:
        """With their line ends. Raises Broken for what is no text, and UserError for a line that
        is longer than data.max_row_mib.
        """
        most = self.data.max_row_mib * MIB
        number = 0
        with self.open(newline) as file:
            while True:
                number += 1
                try:
                    line = file.readline(most + 1)
                except UnicodeError:
                    raise self.undecoded(number) from None
                if not line:
                    return
                if len(line) > most:
                    raise too_long(f"{self.name} line {number}", self.data)
                yield line

    def start(self) -> str:
        """At most its first million bytes as text, those before the damage in a damaged file."""
        sample = first_bytes(self.path, self.name, self.data, MIB)
        return (_decoded(sample, self.encoding, "replace") or "").lstrip("\ufeff")

    def whole(self) -> str:
        """All of it. Raises Broken with the line of what is no character."""
        with self.open() as file:
            try:
                text = file.read()
            except UnicodeError:
                raise self.undecoded(0) from None
        if found := first_undecoded(text):
            raise self.undecoded(text.count("\n", 0, found.start()) + 1, found[0])
        return text

    def undecoded(self, line: int, character: str = "") -> Broken:
        """For ``character`` as ``surrogateescape`` writes a byte, or an unknown one."""
        name = self.encoding.removesuffix("-sig").upper()
        words = f"bytes that are not {name}"
        if character:
            words = f"byte 0x{ord(character) - 0xDC00:02x} is not {name}"
        return Broken("encoding", words, line, SET_ENCODING)


def is_text_encoding(name: str) -> bool:
    """Whether bytes can be decoded to text by that name."""
    try:
        b"a".decode(name)
    except UnicodeError:  # of two bytes and more
        return True
    except LookupError:
        return False
    return True


def too_long(where: str, data: DataSection) -> UserError:
    """The error for a row that would not end."""
    return UserError(
        f"{where} is longer than {data.max_row_mib} MiB: rows are divided by line ends. If such "
        f"rows are meant, raise --set data.max_row_mib={data.max_row_mib}. Nothing was written."
    )


def is_decoded(text: str) -> bool:
    """Whether all its bytes were characters."""
    return text.isascii() or first_undecoded(text) is None


def first_undecoded(text: str) -> re.Match[str] | None:
    """The first byte that was no character."""
    return _UNDECODED.search(text)


_UNDECODED = re.compile("[\udc80-\udcff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


_WORDS = {
    "gb18030": "GB18030 (Chinese, as Excel writes it)",
    "cp1252": "Windows-1252 (Western European, as Excel writes it)",
}


def encoding_of(sample: bytes, only_unicode: bool) -> str:
    """The encoding of a text that begins with ``sample``.

    A text that is UTF-8 but for a few bytes is UTF-8: these bytes are faults of their rows. So is
    what is nothing else either.
    """
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    if _decoded(sample, "utf-8", "strict") is not None:
        return "utf-8"
    text = _decoded(sample, "utf-8", "surrogateescape") or ""
    bad = len(_UNDECODED.findall(text))
    good = len(_NOT_ASCII.findall(text)) - bad
    if good >= bad:
        return "utf-8"
    if _is_chinese(_decoded(sample, "gb18030", "strict")):
        return "gb18030"
    western = None if only_unicode else _decoded(sample, "cp1252", "strict")
    if western and len(_NOT_ASCII.findall(western)) < _MOST_ACCENTS * len(western):
        return "cp1252"
    return "utf-8"


def _decoded(sample: bytes, encoding: str, errors: str) -> str | None:
    """The sample without the character that it may end in the middle of."""
    try:
        return codecs.getincrementaldecoder(encoding)(errors).decode(sample)
    except UnicodeDecodeError:
        return None


_MOST_ACCENTS = 0.25  # of the characters of a Western text; of a Cyrillic one nearly all
_COMMON = 0.7  # of what is not ASCII, in the 3,755 common characters or in punctuation
_LATE = 0.1  # of the common characters, beyond where Korean syllables end in the same bytes


def _is_chinese(text: str | None) -> bool:
    """Whether text that was decoded as GB18030 is that: other encodings give rare characters.

    GB 2312 has its common characters in the order of their sound at 0xB0 to 0xD7. Korean in EUC-KR
    has all syllables at 0xB0 to 0xC8, Cyrillic its small letters above 0xE0.
    """
    others = _NOT_ASCII.findall(text or "")
    if not others:
        return False
    leads = [code[0] for code in (c.encode("gb18030") for c in others) if len(code) == 2]
    common = [lead for lead in leads if 0xB0 <= lead <= 0xD7]
    marks = sum(lead in (0xA1, 0xA3) for lead in leads)
    late = sum(lead > 0xC8 for lead in common)
    return len(common) + marks >= _COMMON * len(others) and late >= max(1, _LATE * len(common))
