"""Lower case: messages as people type them in a hurry, without capitals.

Each word loses its capitals with probability ``rate``. Text in scripts without capitals stays.
"""

from dataclasses import dataclass
from random import Random

from heldout import Augmentation
from heldout.functions import WORD

SOURCE = "an example of the documentation"
COST = "none to speak of"


def in_lower_case(text: str, rate: float, draw: Random) -> str:
    """``text`` with a random share ``rate`` of its words in lower case."""

    def changed(match) -> str:
        return match.group().lower() if draw.random() < rate else match.group()

    return WORD.sub(changed, text)


@dataclass(frozen=True)
class LowerCase(Augmentation):
    """Each word of the chosen rows loses its capitals with probability ``rate``."""

    STRENGTH = "rate"  # the field that schedule="rise:0.3" scales

    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")

    def text(self, content: str, draw: Random) -> str:
        return in_lower_case(content, self.now("rate"), draw)
