"""Which texts of a batch can hold what is looked for: told by their bytes, without a pattern.

Patterns are slow on texts that hold nothing of theirs. A table tells of each byte what it can be a
part of, and a few passes over the bytes of all texts leave the patterns those that have a chance.
"""

# R texts, T bytes of all texts one after another

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

_LATIN_LEAD = 0xC3  # of the two bytes of U+00C0 to U+00FF in UTF-8
_LEADS_AFTER = (0xC2, 0xC5, 0xC6, 0xCB, 0xE2)  # of what 80 to BF are in Latin-1 and Windows-1252
_RUN = 7  # characters of the shortest number that is looked for


@dataclass(frozen=True)
class Signs:
    """Of each text, whether it can hold it: false only where it does not."""

    control_R: np.ndarray  # a control character
    number_R: np.ndarray  # digits with what stands between them, _RUN of them or more
    iban_R: np.ndarray
    latin_R: np.ndarray  # UTF-8 read as Latin-1
    other_R: np.ndarray  # three characters in a row that are not ASCII
    num_digits_R: np.ndarray  # ASCII digits: a count


def signs_of(texts: Sequence[str]) -> Signs:
    """Texts whose digits are all ASCII ones. Cost: 2 ns a byte."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    # Line ends are part of nothing, and let looks behind the first text and ahead of the last end.
    ends = b"\n" * _RUN
    data_T = np.frombuffer(ends + b"\n".join([*parts, ends]), dtype=np.uint8)
    stops_R = _RUN + np.cumsum([len(part) + 1 for part in parts])
    digits = np.flatnonzero((data_T - np.uint8(48)) < 10)
    num_digits_R = np.diff(np.searchsorted(digits, stops_R), prepend=0)
    return Signs(
        _texts_at(_controls(data_T), stops_R),
        _texts_at(_numbers(data_T, digits), stops_R),
        _texts_at(_ibans(data_T, digits), stops_R),
        _texts_at(_latin(data_T), stops_R),
        _texts_at(_others(data_T), stops_R),
        num_digits_R,
    )


@cache
def _is_of(kind: str) -> np.ndarray:
    """(256,) bool."""
    of_kind = {
        "control": [*range(9), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F],
        "number": b"0123456789-. ():",
        "ending": b"0123456789-. ():Xx",
        "digit": b"0123456789",
        "capital": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "word": [c for c in range(128) if chr(c).isalnum() or chr(c) == "_"],
        "IBAN": b" 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    }[kind]
    is_of_C = np.zeros(256, dtype=bool)
    is_of_C[list(of_kind)] = True
    return is_of_C


def _texts_at(places: np.ndarray, stops_R: np.ndarray) -> np.ndarray:
    found_R = np.zeros(len(stops_R), dtype=bool)
    found_R[np.searchsorted(stops_R, places, side="right")] = True
    return found_R


def _controls(data_T: np.ndarray) -> np.ndarray:
    found = np.flatnonzero((data_T < 32) | (data_T == 127))
    return found[_is_of("control")[data_T[found]]]


def _numbers(data_T: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Digits that stand before five bytes of a number and a sixth, or an X."""
    inside_C = _is_of("number")
    for ahead in range(1, _RUN - 1):
        digits = digits[inside_C[data_T[digits + ahead]]]
    return digits[_is_of("ending")[data_T[digits + _RUN - 1]]]


def _ibans(data_T: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Digits with another one behind, where two capitals before them begin a word."""
    for ahead, kind in ((-1, "capital"), (-2, "capital"), (1, "digit"), (2, "IBAN")):
        digits = digits[_is_of(kind)[data_T[digits + ahead]]]
    return digits[~_is_of("word")[data_T[digits - 3]]]


def _latin(data_T: np.ndarray) -> np.ndarray:
    found = np.flatnonzero(data_T[:-2] == _LATIN_LEAD)
    return found[np.isin(data_T[found + 2], _LEADS_AFTER)]


def _others(data_T: np.ndarray) -> np.ndarray:
    """Where six bytes that are not ASCII begin."""
    high_T = data_T > 127
    two_T = high_T[:-1] & high_T[1:]
    return np.flatnonzero(two_T[:-4] & two_T[2:-2] & two_T[4:])
