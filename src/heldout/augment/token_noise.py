"""Token noise: the model reads other tokens in place of some, and still has to predict the right.

Each token is replaced with probability ``rate`` in what the model reads by one drawn from the same
window, that is by the window's own unigram frequencies; what it has to predict stays clean. Known
as unigram noising; it makes the model trust single context tokens less. Special tokens stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from heldout.core.augmentation import Augmentation

SOURCE = "Xie et al. 2017, arXiv 1703.02573"
COST = "none to speak of"


@dataclass(frozen=True)
class TokenNoise(Augmentation):
    """Another token is read in place of each of the chosen rows with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")

    def inputs(
        self, ids: Sequence[int], open_places: Sequence[int], draw: Random, tokenizer: Any
    ) -> list[int]:
        found, rate = list(ids), self.now("rate")
        for place in open_places:
            if draw.random() < rate:
                found[place] = ids[draw.choice(open_places)]
        return found
