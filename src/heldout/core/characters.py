"""Texts as what copies have in common: letters, digits and the marks on them, and nothing else.

Case, width, punctuation, symbols, invisible characters and the vowel signs of Arabic and Hebrew are
left out, and traditional Chinese becomes simplified, character by character. A table tells the
class of each code point, so that there is no loop over characters.
"""

# T characters of all texts, one text after another; R texts

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import regex

from heldout.core.segments import ALONE, HAN, TOGETHER

LEFT_OUT, SPACE, TOGETHER_CLASS, ALONE_CLASS, MARK = range(5)
_SIZE = 0x32400  # code points; what lies beyond is of no script
_UNSEEN = r"[\p{Default_Ignorable_Code_Point}\u0640[\p{Mn}&&[\p{Arabic}\p{scx=Arabic}\p{Hebrew}]]]"
_LETTERS = (string.ascii_letters + string.digits).encode()
_NO_LETTERS = bytes(set(range(256)) - set(_LETTERS))
_SMALL = bytes(range(128)).lower() + bytes(range(128, 256))
_PUNCTUATION = bytes(byte for byte in _NO_LETTERS if byte < 128 and not chr(byte).isspace())
_NOT_LATIN = re.compile("[\u0300-\u1dff\u2c00-\U0010ffff]")
_NO_LETTER = re.compile(r"(?:[^\w\s]|_)+")
_LINE_FEED, _BLANK = np.uint32(10), np.uint32(32)


def token_texts(texts: Sequence[str]) -> list[str]:
    """The tokens of each text, with one space between; of texts as segments.folded gives them.

    A token is what stands between white space; a letter with its marks in scripts without spaces.
    What holds no letter and no digit is none.
    """
    found = [_tokens_between_spaces(text) for text in texts]
    others = [place for place, tokens in enumerate(found) if tokens is None]
    for place, tokens in zip(others, _tokens([texts[place] for place in others]), strict=True):
        found[place] = tokens
    return [tokens or "" for tokens in found]


def token_bytes(texts: Sequence[str]) -> list[bytes]:
    """The same in UTF-8, with one space or more between, before and behind."""
    others = iter(token_texts([text for text in texts if not text.isascii()]))
    return [
        text.encode().translate(None, _PUNCTUATION)
        if text.isascii()
        else next(others).encode("utf-8", "surrogatepass")
        for text in texts
    ]


def _tokens_between_spaces(text: str) -> str | None:
    """Of texts in Latin letters without marks of their own, which is faster; None of others."""
    if text.isascii():
        text = text.encode().translate(None, _PUNCTUATION).decode()
    elif _NOT_LATIN.search(text):
        return None
    else:
        text = _NO_LETTER.sub("", text)
    return " ".join(text.split())


def _tokens(texts: list[str]) -> list[str]:
    points_T, class_T, ends_R = _points([f"{text}\n" for text in texts])
    points_T[class_T == SPACE] = _BLANK
    points_T[ends_R - 1] = _LINE_FEED
    kept = class_T != LEFT_OUT
    points_T, class_T = points_T[kept], class_T[kept]
    # A letter that stands alone begins a token, and so does one that follows it and its marks.
    no_mark = np.where(class_T == MARK, 0, np.arange(len(class_T)))
    before_T = np.append(SPACE, class_T[np.maximum.accumulate(no_mark)][:-1])
    begins_T = class_T == ALONE_CLASS
    begins_T |= (class_T == TOGETHER_CLASS) & (before_T == ALONE_CLASS)
    stops_T = np.cumsum(begins_T + 1)
    spaced = np.full(int(stops_T[-1]) if len(stops_T) else 0, _BLANK)
    spaced[stops_T - 1] = points_T
    lines = spaced.tobytes().decode("utf-32-le", "surrogatepass").split("\n")
    return [" ".join(line.split()) for line in lines[: len(texts)]]


def letters(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T,) code points of all that is kept of the texts, (T,) whether each says as much as several
    letters, in scripts without spaces and in Hangul, and (R,) where each text ends.
    """
    is_ascii_R = np.array([text.isascii() for text in texts], dtype=bool)
    plain = [text.encode().translate(_SMALL, _NO_LETTERS) for text in texts if text.isascii()]
    plain_T = np.frombuffer(b"".join(plain), dtype=np.uint8)
    sizes_R = np.zeros(len(texts), dtype=np.int64)
    sizes_R[is_ascii_R] = [len(part) for part in plain]
    if is_ascii_R.all():
        return plain_T, np.zeros(len(plain_T), dtype=bool), np.cumsum(sizes_R)
    points_T, class_T, ends_R = _points([_normalized(t) for t in texts if not t.isascii()])
    kept = class_T > SPACE
    sizes_R[~is_ascii_R] = np.diff(np.append(0, np.cumsum(kept))[ends_R], prepend=0)
    is_plain_T = np.repeat(is_ascii_R, sizes_R)
    found_T, alone_T = np.empty(len(is_plain_T), np.uint32), np.zeros(len(is_plain_T), bool)
    found_T[is_plain_T], found_T[~is_plain_T] = plain_T, points_T[kept]
    alone_T[~is_plain_T] = class_T[kept] == ALONE_CLASS
    alone_T |= (found_T >= 0xAC00) & (found_T <= 0xD7A3)
    return found_T, alone_T, np.cumsum(sizes_R)


def _points(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T,) folded code points, (T,) their classes, and (R,) where each text ends."""
    data = "".join(texts).encode("utf-32-le", "surrogatepass")
    points_T = np.frombuffer(data, dtype=np.uint32)
    class_C, folded_C = _tables()
    place_T = np.minimum(points_T, _SIZE - 1)
    ends_R = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return np.where(points_T < _SIZE, folded_C[place_T], points_T), class_C[place_T], ends_R


def _normalized(text: str) -> str:
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return text.casefold()


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Class and folded form of each code point. Cost: a fifth of a second, once."""
    every = "".join(map(chr, range(_SIZE)))
    class_C = np.full(_SIZE, LEFT_OUT, dtype=np.uint8)
    for number, pattern in (
        (MARK, r"\p{M}"),
        (TOGETHER_CLASS, TOGETHER),
        (ALONE_CLASS, ALONE),
        (LEFT_OUT, _UNSEEN),
    ):
        for found in regex.finditer(f"(?V1){pattern}++", every):
            class_C[found.start() : found.end()] = number
    class_C[[character.isspace() for character in every]] = SPACE
    folded_C = np.arange(_SIZE, dtype=np.uint32)
    for character, other in _simplified_forms().items():
        folded_C[character] = ord(other)
    return class_C, folded_C


def simplified(text: str) -> str:
    """A text with each traditional Chinese character in its simplified form, by itself."""
    return text if text.isascii() else text.translate(_simplified_forms())


@cache
def _simplified_forms() -> dict[int, str]:
    from opencc import OpenCC

    han = HAN.findall("".join(map(chr, range(_SIZE))))
    others = str(OpenCC("t2s").convert("\n".join(han))).split("\n")
    return {ord(a): b for a, b in zip(han, others, strict=True) if a != b}
