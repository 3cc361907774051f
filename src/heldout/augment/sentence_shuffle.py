"""Sentence shuffle: sentences of a text change places.

A random share of the sentences is dealt anew among the places that they leave; what stands between
places stays. For texts whose sentences stand on their own; where order carries the meaning
(stories, proofs, steps) it teaches disorder. A text of one sentence stays.
"""

from dataclasses import dataclass
from random import Random

from heldout.core.augmentation import Augmentation
from heldout.core.segments import sentences

SOURCE = "sentence permutation of BART, Lewis et al. 2019, arXiv 1910.13461"
COST = "none to speak of"


def reordered(parts: list[str], share: float, draw: Random) -> list[str]:
    """Every other part, from the first, is an item: each moves with probability ``share``."""
    movable = range(0, len(parts), 2)
    places = [place for place in movable if parts[place].strip() and draw.random() < share]
    targets = draw.sample(places, len(places))
    found = list(parts)
    for place, target in zip(places, targets, strict=True):
        found[target] = parts[place]
    return found


@dataclass(frozen=True)
class SentenceShuffle(Augmentation):
    """Each sentence of the chosen rows moves with probability ``share``."""

    STRENGTH = "share"
    WHOLE = True

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share <= 1, "between 0 and 1")

    def text(self, content: str, draw: Random) -> str:
        return "".join(reordered(sentences(content), self.now("share"), draw))
