"""Masking: the model reads a blank in place of some tokens, and still has to predict them.

Each token is hidden with probability ``rate`` from what the model reads, never from what it has to
predict: the loss stays that of the clean text, from less context. Known as word dropout of a
decoder and as blank noising, which acts like interpolation with shorter n-grams. Special tokens
stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from heldout.core.augmentation import Augmentation

SOURCE = "Xie et al. 2017, arXiv 1703.02573; Bowman et al. 2016, arXiv 1511.06349"
COST = "none to speak of"


@dataclass(frozen=True)
class Masking(Augmentation):
    """A blank is read in place of each token of the chosen rows with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.1
    blank: str = "_"  # its last token is read; a tokenizer's own mask token goes before

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")
        self.require("blank", bool(self.blank.strip()), "text")

    def inputs(
        self, ids: Sequence[int], open_places: Sequence[int], draw: Random, tokenizer: Any
    ) -> list[int]:
        blank_id = tokenizer.mask_token_id
        if blank_id is None:
            blank_id = tokenizer(self.blank, add_special_tokens=False).input_ids[-1]
        found, rate = list(ids), self.now("rate")
        for place in open_places:
            if draw.random() < rate:
                found[place] = blank_id
        return found
