"""The words people see, in another language than English: one table of sentences a language.

Sentences are written in English where they are said, and JSON keeps them so. What is shown on a
page or in a terminal passes `say`, which looks the finished sentence up in the table of the
language in use. An entry is ``"English {0}" = "translation {0}"``; ``{0}`` stands for whatever was
filled in and is looked up itself. What no entry covers stays English. Decision 014 tells why the
finished sentence is looked up and not its template.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources

from heldout.core.errors import UserError, did_you_mean

VARIABLE = "HELDOUT_LANG"
_FIELD = re.compile(r"\{(\d+)\}")
_LETTER = re.compile(r"[A-Za-z]")
_WORD = re.compile(r"[A-Za-z]{2}")
# What joins sentences; then what joins the parts of one, from the weakest tie to the strongest.
_SENTENCES = re.compile(r"(?<=[.!?…])(?<!\bal\.)\s+|\n")
_CLAUSES = re.compile(rf"{_SENTENCES.pattern}|;\s")
_PARTS = tuple(re.compile(joint) for joint in (r"\s·\s", r";\s+", r":\s+", r",\s+"))
_LABEL = re.compile(r":\s|(?:^|\s)·\s")
_FULL_WIDTH = {";": "；", ":": "：", ",": "，"}
# A field of a template with fewer letters than this takes a number, a file or a known phrase alone
# ("{0} of {1}" must not take any sentence with "of" in it apart), but for a name in quotes.
_FEW_LETTERS = 12
_LONGEST = 2000
# Between two full-width characters no space is written.
_WIDE = "\u3001-\u303f\u3400-\u9fff\uff00-\uffef"
_SPACES = re.compile(rf"(?<=[{_WIDE}]) +(?=[{_WIDE}])")
_CLOSING = tuple("。！？；：，、）”")
# Of two fields without words between them the first is a figure.
_FIGURE = r"([^\s(]*)"
_PERCENT = re.compile(r"(?<=\d)[ \u00a0]%")
# Names of measurements, and settings with their values, are data.
_NAME = re.compile(r"[\w.]*[_=][\w.=]*")
_FILE = re.compile(r"[\w./-]*\w\.\w{1,8}")
_MARK = re.compile(r"\s*(?:[-+] +)?")  # of a list
_BRACKETS = re.compile(r"\([^()]*\)")

_in_use: ContextVar[str] = ContextVar("language", default="")


def languages() -> list[str]:
    """English, and each language that has a table."""
    tables = resources.files("heldout.core") / "languages"
    return ["en", *sorted(entry.name for entry in tables.iterdir() if entry.is_dir())]


def language() -> str:
    """The language in use: the chosen one, else ``HELDOUT_LANG``, else English."""
    return _in_use.get() or checked(os.environ.get(VARIABLE) or "en", VARIABLE)


def checked(name: str, argument: str = "--lang") -> str:
    """``name``, as a language there is a table for (``zh_CN.UTF-8`` is ``zh``).

    Raises:
        UserError: no table.
    """
    short = re.split(r"[-_.]", name.lower())[0]
    if short not in languages():
        raise UserError(
            f"{argument} must be a language that there is a table for, got {name!r}"
            f"{did_you_mean(short, languages())}"
        )
    return short


@contextmanager
def using(name: str) -> Iterator[None]:
    """What is shown inside the block is in this language; "" leaves the choice as it is."""
    if not name:
        yield
        return
    token = _in_use.set(checked(name))
    try:
        yield
    finally:
        _in_use.reset(token)


def say(text: str) -> str:
    """``text`` in the language in use; what no entry covers stays as it is."""
    name = language()
    return text if name == "en" else sentences(name).say(text)


@cache
def sentences(name: str) -> "Sentences":
    """The table of a language, from all files in its folder."""
    entries: dict[str, str] = {}
    folder = resources.files("heldout.core") / "languages" / name
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            entries.update(tomllib.loads(file.read_text(encoding="utf-8")))
    return Sentences(entries)


class Sentences:
    """English sentences and their translations; finds the one that a finished text came from."""

    def __init__(self, entries: Mapping[str, str]):
        self.entries = entries
        self.exact = {key: other for key, other in entries.items() if not _FIELD.search(key)}
        self.templates = sorted(
            (_Template(key, other) for key, other in entries.items() if _FIELD.search(key)),
            key=lambda template: (-template.num_letters, -sum(map(len, template.literals))),
        )
        self._said: dict[str, str] = {}
        self._found: dict[str, str | None] = {}
        self.unsaid: set[str] = set()  # sentences that were asked for and no entry covers

    def say(self, text: str) -> str:
        """The translation; sentence by sentence where no entry has the whole."""
        if not _LETTER.search(text):
            return _PERCENT.sub("%", text)
        if len(text) > _LONGEST:
            return text
        if text not in self._said:
            plain = text.replace("\u00a0", " ")  # numbers and their % keep together on pages
            said = self._say(plain)
            self._said[text] = text if said == plain else said
        return self._said[text]

    def _say(self, text: str) -> str:
        start = _MARK.match(text)[0]  # type: ignore[index]
        core = text[len(start) :].rstrip()
        if core != text:
            return start + self.say(core) + text[len(start) + len(core) :]
        whole = self._whole(core)
        if whole is not None:
            return whole
        if joints := list(_SENTENCES.finditer(core)):
            return self._sentences(core, joints)
        if said := self._in_parts(core):
            return said
        self.unsaid.add(core)
        return core

    def _sentences(self, text: str, joints: list[re.Match[str]]) -> str:
        """Runs of sentences as long as an entry covers them; a sentence that none covers stays."""
        starts, stops = _bounds(text, joints)
        done, i = "", 0
        while i < len(starts):
            for j in range(len(stops), i, -1):
                part = text[starts[i] : stops[j - 1]]
                known = self.say(part) if j == i + 1 else self._whole(part)
                if known is not None:
                    tie = text[stops[j - 1] : starts[j]] if j < len(starts) else ""
                    done += known + ("" if tie == " " and known[-1:] in _CLOSING else tie)
                    i = j
                    break
        return done

    def _in_parts(self, text: str) -> str:
        for joint in _PARTS:
            joints = list(joint.finditer(text))
            for some in (joints[:1], joints):  # a label and the rest, or equal parts
                if some and (said := self._parts(text, some)):
                    return said
        return ""

    def _parts(self, text: str, joints: list[re.Match[str]]) -> str:
        """All parts of a sentence; "" where one is not known, so that no sentence is half said."""
        starts, stops = _bounds(text, joints)
        parts = [text[start:stop] for start, stop in zip(starts, stops, strict=True)]
        if not all(map(self._is_known, parts)):
            return ""
        ties = [joint[0] for joint in joints]
        ties = [_FULL_WIDTH.get(tie.strip(), tie) for tie in ties]
        return "".join(map(str.__add__, map(self.say, parts), [*ties, ""]))

    def _whole(self, text: str) -> str | None:
        known = self._entry(text)
        if known is None and text.endswith(".") and (known := self._entry(text[:-1])):
            return f"{known}。"  # a phrase that ends a sentence
        if known is None and text[:1].isupper():
            return self._entry(text[0].lower() + text[1:])  # one that begins a sentence
        return known

    def _entry(self, text: str) -> str | None:
        """By the entry that covers all of the text; parts are asked for again and again."""
        if text not in self._found:
            self._found[text] = self.exact.get(text) or self._of_template(text)
        return self._found[text]

    def _of_template(self, text: str) -> str | None:
        for template in self.templates:
            if template.longest not in text:
                continue
            fields = template.fields(text)
            if fields is None:
                continue
            if any(
                _LABEL.search(_BRACKETS.sub("", field))
                for field, is_one in zip(fields, template.is_one_part, strict=True)
                if is_one
            ):
                continue  # "label: 3 of ..." is a label and a sentence
            if any(
                '"' in field
                for field, is_quoted in zip(fields, template.is_quoted, strict=True)
                if is_quoted
            ):
                continue  # two quotations
            # A field holds no end of a clause, unless all of it is known: that is the next one's.
            asked = [
                field
                for field, is_bound in zip(fields, template.is_bound, strict=True)
                if _CLAUSES.search(field) or (is_bound and not _FILE.fullmatch(field))
            ]
            if all(map(self._is_known, asked)):
                said = map(self._field, fields, template.is_quoted)
                return _PERCENT.sub("%", _SPACES.sub("", template.filled(list(said))))
        return None

    def _field(self, text: str, is_quoted: bool) -> str:
        said = text if is_quoted else self.say(text)
        return said if said != text else _BRACKETS.sub(lambda found: self.say(found[0]), text)

    def _is_known(self, field: str) -> bool:
        """Numbers, names, and what has an entry, also with brackets behind it that have one."""
        rest = _BRACKETS.sub(lambda found: found[0] if self._whole(found[0]) is None else "", field)
        return any(
            not _WORD.search(each)
            or _NAME.fullmatch(each)
            or self._whole(each) is not None
            or self._in_parts(each)
            for each in dict.fromkeys((field.strip(), rest.strip()))
        )


def _bounds(text: str, joints: list[re.Match[str]]) -> tuple[list[int], list[int]]:
    starts = [0, *(joint.end() for joint in joints)]
    return starts, [*(joint.start() for joint in joints), len(text)]


class _Template:
    """One entry with fields."""

    def __init__(self, english: str, other: str):
        parts = _FIELD.split(english)
        self.literals = [part for part in parts[::2] if part]
        self.longest = max(self.literals, key=len, default="")
        self.numbers = [int(number) for number in parts[1::2]]
        self.other = other
        self.num_letters = sum(character.isalpha() for part in parts[::2] for character in part)
        # In quotes, or within the name of a measurement.
        self.is_quoted = [part.endswith(('"', "_")) for part in parts[:-1:2]]
        few = self.num_letters < _FEW_LETTERS
        self.is_bound = [few and not quoted for quoted in self.is_quoted]
        if english.startswith("{0}: ") and self.num_letters > _FEW_LETTERS / 2:
            self.is_bound[0] = False  # a label
        # What stands beside words is no label with what it labels.
        self.is_one_part = [
            is_bound and not before.endswith((": ", "· "))
            for is_bound, before in zip(self.is_bound, parts[:-1:2], strict=True)
        ]
        if english.startswith("{0}"):
            self.is_one_part[0] = not english.startswith("{0}: ")
        # A period between digits is a decimal point.
        escaped = [re.sub(r"^\\\.", r"\\.(?!\\d)", re.escape(part)) for part in parts[::2]]
        pattern = escaped[0]
        for literal in escaped[1:-1]:
            pattern += f"(.*?){literal}" if literal else _FIGURE
        pattern += f"(.*?){escaped[-1]}"
        self.pattern = re.compile(pattern, re.DOTALL)

    def fields(self, text: str) -> list[str] | None:
        if not all(literal in text for literal in self.literals):
            return None
        found = self.pattern.fullmatch(text)
        return list(found.groups()) if found else None

    def filled(self, fields: list[str]) -> str:
        by_number = dict(zip(self.numbers, fields, strict=True))
        return _FIELD.sub(lambda field: by_number[int(field[1])], self.other)
