"""Seven scripts as they are written, and rows of invented words in them."""

import random
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """How a script is written."""

    letters: str
    sizes: tuple[int, ...]  # letters of its words
    space: str
    comma: str
    ends: tuple[str, ...]  # of sentences, each with what stands before the next one

    def vocabulary(self, num: int) -> list[str]:
        rng = random.Random(num)
        found: set[str] = set()
        while len(found) < num:
            word = "".join(rng.choices(self.letters, k=rng.choice(self.sizes)))
            if not unicodedata.category(word[0]).startswith("M"):
                found.add(word)
        return sorted(found)

    def letters_of(self, word: str) -> list[str]:
        """What counts as words of a word."""
        if self.space:
            return [word]
        found: list[str] = []
        for letter in word:
            if found and unicodedata.category(letter).startswith("M"):
                found[-1] += letter
            else:
                found.append(letter)
        return found


_COMMON = [
    bytes((row, cell)).decode("gb2312") for row in range(0xB0, 0xD7) for cell in range(0xA1, 0xFE)
]
HAN = "".join(_COMMON[::5])
_WIDE_ENDS = ("。", "！", "？", "！！！", "……", "。 ", "!", "？」", "。\n")
SCRIPTS = {
    "Chinese": Script(HAN, (1, 1, 2, 2, 2, 3), "", "，", _WIDE_ENDS),
    "Japanese": Script(
        "あいうえおかきくけこさしすせそたちつてとなにのはまもやらりるれをカキクケコサシスー日本語山川",
        (2, 2, 3, 4),
        "",
        "、",
        _WIDE_ENDS,
    ),
    "Korean": Script(
        "".join(chr(0xAC00 + 28 * n) for n in range(0, 390, 2)),
        (2, 3, 3, 4),
        " ",
        ", ",
        (". ", "! ", "? ", "!!! ", '." ', ".\n"),
    ),
    "Thai": Script(
        "กขคงจชซดตทนบปพมยรลวสหอเแโไาะ\u0e34\u0e35\u0e38\u0e31", (3, 4, 5, 6), "", " ", ("\n",)
    ),
    "Hindi": Script(
        "कखगघचजटडतदनपबमयरलवसहअआई\u093e\u093f\u0940\u0941\u0947\u094b\u0902\u094d",
        (3, 4, 5, 6),
        " ",
        ", ",
        ("। ", "! ", "? ", "।", "।\n"),
    ),
    "Arabic": Script(
        "ابتثجحخدرزسشصضطعغفقكلمنهوي", (3, 4, 5, 6), " ", "، ", (". ", "! ", "؟ ", "؟!", ".\n")
    ),
    "English": Script(
        "abcdefghijklmnopqrstuvwxyz",
        (2, 3, 4, 5, 6, 7, 8),
        " ",
        ", ",
        (". ", "! ", "? ", "!!! ", '." ', "… ", ".\n"),
    ),
}  # fmt: skip


def some(words: list[str], rng: random.Random, num: int) -> list[str]:
    """Frequent words more often."""
    return rng.choices(words, [1 / (n + 5) for n in range(len(words))], k=num)
