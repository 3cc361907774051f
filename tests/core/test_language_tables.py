"""The table of each language: complete, with the fields of the English, and nothing too much."""

import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from sentences_said import ROOMS, SOURCE, all_sentences, unsaid

from heldout.core.language import languages, sentences

TABLES = Path(SOURCE) / "core" / "languages"
LANGUAGES = languages()[1:]
_FIELD = re.compile(r"\{\d+\}")
_HAN = r"[\u3400-\u9fff]"


@cache
def missing(name: str) -> dict[str, list[str]]:
    return unsaid(name)


@cache
def files_of(name: str) -> dict[str, dict[str, str]]:
    """The entries of each file of a language."""
    return {
        file.name: tomllib.loads(file.read_text(encoding="utf-8"))
        for file in sorted((TABLES / name).glob("*.toml"))
    }


def words(text: str) -> set[str]:
    """In lower case, without the s of several."""
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{2,}", text.lower())}


@cache
def source() -> str:
    """All code and tables in one line, strings that go over lines whole."""
    texts = (
        file.read_text(encoding="utf-8")
        for pattern in (
            "*.py",
            "*.j2",
            "*.js",
            "diagnosis/*.toml",
            "jobs/*/*.toml",
            "recipes/*.toml",
        )
        for file in SOURCE.rglob(pattern)
    )
    return re.sub(r'"\s+f?"|\s+', lambda gap: "" if '"' in gap[0] else " ", " ".join(texts))


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("name", LANGUAGES)
def test_every_sentence_has_an_entry(name, room):
    here = {
        text: places
        for text, places in missing(name).items()
        if any(place.startswith(f"{room}/") for place in places)
    }
    assert not here, "python tests/contracts/sentences_said.py prints them for the table"


@pytest.mark.parametrize("name", LANGUAGES)
def test_an_entry_has_the_fields_of_its_sentence(name):
    for english, other in sentences(name).entries.items():
        fields = [Counter(_FIELD.findall(text)) for text in (english, other)]
        assert fields[0] == fields[1], english
        assert max(fields[0].values(), default=1) == 1, english


@pytest.mark.parametrize("name", LANGUAGES)
def test_no_sentence_stands_in_two_files(name):
    places = Counter(english for entries in files_of(name).values() for english in entries)
    assert not [english for english, num in places.items() if num > 1]


@pytest.mark.parametrize("name", LANGUAGES)
def test_no_entry_has_lost_its_sentence(name):
    """A sentence of the source changes: its entry must. Words that fields hold must be there."""
    said, known = all_sentences(), words(source())
    for english in sentences(name).entries:
        is_there = english in said or any(
            all(part.strip(" ().") in source() for part in _FIELD.split(each))
            for each in (english, english.replace(" ", "_"))  # names are shown with spaces
        )
        assert is_there or len(english.split()) < 5, english
        assert is_there or words(english) <= known, english


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_finished_sentence_is_found_by_its_own_entry(name):
    """Filled with figures; another entry that fits as well would take it."""
    table = sentences(name)
    for english, other in table.entries.items():
        text, wanted = english, other
        for field in _FIELD.findall(english):
            figure = f"[{field[1:-1]} x]"
            if f"}}{field}" in english:  # what is told behind a figure, in brackets
                figure = f" ({field[1:-1]} x)"
            elif re.search(rf"\}} \{field}|\{field} ?\{{", english):
                figure = f"[{field[1:-1]}]"
            text, wanted = text.replace(field, figure), wanted.replace(field, figure)
        if re.search("[A-Za-z]", english):
            assert table.say(text) == wanted


def test_chinese_is_written_as_chinese():
    for english, chinese in sentences("zh").entries.items():
        assert re.search(_HAN, chinese) or words(chinese) <= words(english), english
        assert not re.search(rf"{_HAN} ?[,.;:!?]|[,;:] ?{_HAN}", chinese), chinese
        assert not re.search(r"[ \u00a0]%(?!\{)", chinese), chinese
        assert not re.search(rf"{_HAN} +{_HAN}", chinese), chinese
