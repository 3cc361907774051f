"""Characters as a reader counts them, and how many Latin letters say as much as a text."""

import regex

_GRAPHEME = regex.compile(r"\X")
# A Chinese character, a syllable of Hangul or kana says what about three Latin letters do.
_WIDE = regex.compile(r"[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}]")
_MARK = regex.compile(r"\p{M}")  # drawn onto another character
WIDE_LETTERS = 3
_NEAR = 64  # code points: what is longer before a place is not one character


def num_graphemes(text: str) -> int:
    """Characters with their marks: a syllable of Devanagari is one, and so is a flag."""
    return sum(1 for _ in _GRAPHEME.finditer(text))


def is_boundary(text: str, place: int) -> bool:
    """Whether a character begins at ``place`` (code points), or the text begins or ends there."""
    if place <= 0 or place >= len(text):
        return True
    if text[place - 1 : place + 1].isascii():  # of these only two make one character together
        return text[place - 1 : place + 1] != "\r\n"
    start = max(0, place - _NEAR)
    before = (start + found.start() for found in _GRAPHEME.finditer(text[start : place + 1]))
    return place in before


def boundary_before(text: str, place: int) -> int:
    """The nearest boundary between two characters at ``place`` or before it."""
    place = min(place, len(text))
    while not is_boundary(text, place):
        place -= 1
    return place


def num_letters(text: str) -> int:
    """Length in Latin letters: marks count nothing, each of Chinese, kana and Hangul three."""
    num_wide, num_marks = (len(each.findall(text)) for each in (_WIDE, _MARK))
    return len(text) - num_marks + (WIDE_LETTERS - 1) * num_wide
