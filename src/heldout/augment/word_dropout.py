"""Word dropout: words are left out at random.

Each word goes with probability ``rate``, with the space before it; punctuation stays. In scripts
without spaces a letter counts as a word. In a prompt it teaches to answer from less. In a plain
text what is left is also what is learned, so that a high rate teaches to write without words: keep
it low there.
"""

from dataclasses import dataclass
from random import Random

from heldout.core.augmentation import Augmentation
from heldout.core.segments import WORD

SOURCE = "Iyyer et al. 2015, ACL P15-1162; random deletion of Wei & Zou 2019, arXiv 1901.11196"
COST = "none to speak of"


def without_words(text: str, rate: float, draw: Random) -> str:
    """``text`` without a random share ``rate`` of its words."""
    kept, end = [], 0
    for match in WORD.finditer(text):
        start = match.start()
        if draw.random() < rate:
            if start > end and text[start - 1] == " ":
                start -= 1
            kept.append(text[end:start])
            end = match.end()
    return "".join(kept) + text[end:]


@dataclass(frozen=True)
class WordDropout(Augmentation):
    """Each word of the chosen rows is left out with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate < 1, "at least 0 and under 1")

    def text(self, content: str, draw: Random) -> str:
        return without_words(content, self.now("rate"), draw)
