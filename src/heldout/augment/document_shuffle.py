"""Document shuffle: paragraphs of a document change places.

A random share of the paragraphs (separated by blank lines) is dealt anew among the places that they
leave; their sentences stay in order. For collections and reference texts. A text of one paragraph
stays.
"""

from dataclasses import dataclass
from random import Random

from heldout.augment.sentence_shuffle import reordered
from heldout.core.augmentation import Augmentation
from heldout.core.segments import paragraphs

SOURCE = "Lewis et al. 2019, arXiv 1910.13461, on paragraphs"
COST = "none to speak of"


@dataclass(frozen=True)
class DocumentShuffle(Augmentation):
    """Each paragraph of the chosen rows moves with probability ``share``."""

    STRENGTH = "share"
    WHOLE = True

    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share <= 1, "between 0 and 1")

    def text(self, content: str, draw: Random) -> str:
        return "".join(reordered(paragraphs(content), self.now("share"), draw))
