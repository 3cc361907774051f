"""Character noise: letters are swapped, lost, doubled or exchanged.

A share ``rate`` of all letters with their marks, and digits; each change is one of four, equally
likely: swapped with the next, left out, doubled, or replaced by another character of the same text,
so that every script gets noise of its own. For prompts that come from hurried hands.
"""

from dataclasses import dataclass
from random import Random

from heldout.core.augmentation import Augmentation
from heldout.core.segments import CHARACTER

SOURCE = "Belinkov & Bisk 2018, arXiv 1711.02173"
COST = "none to speak of"


def with_character_noise(text: str, rate: float, draw: Random) -> str:
    """``text`` with a random share ``rate`` of its characters changed."""
    characters = CHARACTER.findall(text)
    letters = [character for character in characters if character[0].isalnum()]
    found, place = [], 0
    while place < len(characters):
        character = characters[place]
        place += 1
        if not character[0].isalnum() or draw.random() >= rate:
            found.append(character)
            continue
        change = draw.randrange(4)
        if change == 0 and place < len(characters) and characters[place][0].isalnum():
            found += [characters[place], character]
            place += 1
        elif change == 1:
            found += [character, character]
        elif change == 2:
            found.append(draw.choice(letters))
        # else it is left out
    return "".join(found)


@dataclass(frozen=True)
class CharacterNoise(Augmentation):
    """Each character of the chosen rows is changed with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")

    def text(self, content: str, draw: Random) -> str:
        return with_character_noise(content, self.now("rate"), draw)
