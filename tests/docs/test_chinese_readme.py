"""The Chinese README says what README.md says: its sections, commands, links and figures."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HAN = r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"


@pytest.fixture(scope="module")
def english() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chinese() -> str:
    return (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def sections(text: str) -> list[str]:
    """Text of each section, what stands before the first one included."""
    return re.split(r"^## .*\n", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)


def blocks(text: str) -> list[list[str]]:
    """Lines of each code block without their comments."""
    found = re.findall(r"```(?:python)?\n(.*?)```", text, re.S)
    return [[line.split("#")[0].rstrip() for line in each.splitlines()] for each in found]


def paths(text: str) -> list[str]:
    """What stands in code spans and links."""
    spans = re.findall(r"`([^`]+)`", text)
    return sorted([*spans, *re.findall(r"\]\(([^)]+)\)", text)])


def figures(text: str) -> Counter[float]:
    """Numbers with a decimal point or a percent sign, as often as they stand there."""
    prose = re.sub(
        r"`[^`]*`|\]\([^)]*\)|[A-Za-z]\w*-[\w.]+|\d+\.\d+M|[A-Za-z]\w*[\d.]*\d", " ", text
    )
    found = re.findall(r"(?<![\w.])(\d*\.\d+)|(?<![\w.])(\d+)(?=\s?%)", prose)
    return Counter(float(decimal or percent) for decimal, percent in found)


def test_each_section_has_its_figures_and_its_links(english, chinese):
    both = sections(english), sections(chinese)
    assert len(both[0]) == len(both[1]) == 6
    for number, (ours, theirs) in enumerate(zip(*both, strict=True)):
        links = [each.replace("README.zh-CN.md", "README.md") for each in paths(ours)]
        assert paths(theirs) == sorted(links), number
        if number != 1:  # of Python's version
            assert figures(theirs) == figures(ours), number
        # A paragraph or a point of a list for each.
        assert theirs.count("\n\n") == ours.count("\n\n"), number
        assert theirs.count("\n- ") == ours.count("\n- "), number
        assert theirs.count("\n|") == ours.count("\n|"), number


def test_commands_and_code_are_the_same(english, chinese):
    ours, theirs = blocks(english), blocks(chinese)
    assert ours == theirs
    assert sum(map(len, ours)) > 10


def test_it_is_written_as_chinese_is(chinese):
    prose = re.sub(r"```.*?```|`[^`]*`", "", chinese, flags=re.S)
    assert not re.findall(r"\d\s+%", prose)  # 95%, not 95 %
    assert not re.findall(r"(?<![\d.])\.\d", prose)  # 0.53, not .53
    assert not re.findall(rf"{HAN}[,;:?!]|[,;:?!]{HAN}", prose)  # full-width punctuation
    for word in ("密封", "孪生", "盏灯"):
        assert word not in prose
