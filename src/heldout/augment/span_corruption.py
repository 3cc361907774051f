"""Span corruption: spans are cut out, and written again after the text.

``The king of France is old.`` becomes ``The <mask:0> is old. <mask:0> king of France``: a causal
model learns to fill in from both sides, and sees each span in another place. Spans of ``length``
words on average (geometric) take a share ``rate`` of the words. The marks are text, not new tokens.
"""

from dataclasses import dataclass
from random import Random

from heldout.core.augmentation import Augmentation
from heldout.core.segments import WORD

SOURCE = "causal masking of CM3, Aghajanyan et al. 2022, arXiv 2201.07520; T5, arXiv 1910.10683"
COST = "a few tokens more in each chosen row"


def with_spans_moved(text: str, rate: float, length: float, draw: Random) -> str:
    """``text`` with marks in place of random spans, and the spans after it."""
    words = [match.span() for match in WORD.finditer(text)]
    begins = rate / max(1.0, length)  # at each word that is outside a span
    kept: list[str] = []
    moved: list[str] = []
    end = place = 0
    while place < len(words):
        if draw.random() >= begins:
            place += 1
            continue
        first = place
        place += 1
        while place < len(words) and draw.random() < 1 - 1 / length:
            place += 1
        start, stop = words[first][0], words[place - 1][1]
        mark = f"<mask:{len(moved)}>"
        kept += [text[end:start], mark]
        moved.append(f" {mark} {text[start:stop]}")
        end = stop
    return "".join([*kept, text[end:], *moved])


@dataclass(frozen=True)
class SpanCorruption(Augmentation):
    """A share ``rate`` of the words of the chosen rows moves, in spans of about ``length``."""

    STRENGTH = "rate"
    WHOLE = True

    rate: float = 0.15
    length: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")
        self.require("length", self.length >= 1, "1 or more")

    def text(self, content: str, draw: Random) -> str:
        return with_spans_moved(content, self.now("rate"), self.length, draw)
