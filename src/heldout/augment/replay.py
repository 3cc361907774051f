"""Replay: general text stands beside the own rows, so that less is forgotten.

Each epoch takes another random part of ``data``, ``share`` of all rows of the epoch. The rows keep
their own ``source`` and are trained on only: what is measured stays the own rows, and a row that
repeats a held-out one is left out.
"""

from dataclasses import dataclass, field
from random import Random

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.errors import UserError
from heldout.core.row import Row

SOURCE = "Scialom et al. 2022, arXiv 2205.12393; Ibrahim et al. 2024, arXiv 2403.08763"
COST = "share / (1 - share) more rows in each epoch"


@dataclass(frozen=True)
class Replay(Augmentation):
    """Rows of ``data`` make up ``share`` of every epoch."""

    STRENGTH = "share"
    READS = "data"

    data: str = ""
    share: float = 0.2
    probability: float = field(default=1.0, kw_only=True)
    _rows: list[Row] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share < 1, "at least 0 and under 1")
        self.require("probability", self.probability in (0, 1), "1: choose the share instead")

    def prepare(self, supplies: Supplies) -> None:
        if not self.data:
            raise UserError("Replay(data=...) must name a file or folder with general text.")
        self._rows[:] = supplies.read(self.data)

    def added(self, rows: list[Row], draw: Random) -> list[Row]:
        share = self.now("share")
        wanted = round(len(rows) * share / (1 - share))
        return sampled(self._rows, wanted, draw)


def sampled(rows: list[Row], wanted: int, draw: Random) -> list[Row]:
    """That many rows, none a second time before all have come once."""
    found: list[Row] = []
    while rows and len(found) < wanted:
        found += draw.sample(rows, min(len(rows), wanted - len(found)))
    return found
