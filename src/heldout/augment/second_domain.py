"""Second domain: rows of another domain, weighted by a power of the two sizes.

With n own rows and m of ``data`` the second domain gets m^exponent / (n^exponent + m^exponent) of
every epoch: as in the data at 1, half at 0; between, a small domain is seen more often than its
size. Own rows are seen once each, as without it. The rows keep their own ``source``, which
regularizers over domains read, and are trained on only; one that repeats a held-out row is left
out.
"""

from dataclasses import dataclass, field
from random import Random

from heldout.augment.replay import sampled
from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.errors import UserError
from heldout.core.row import Row

SOURCE = "exponential sampling of Conneau et al. 2020, arXiv 1911.02116"
COST = "(m / n)^exponent as many rows more in each epoch"


def num_added(num_own: int, num_other: int, exponent: float) -> float:
    """How many rows of the other domain stand beside all own ones in an epoch."""
    return num_own * (num_other / num_own) ** exponent if num_own and num_other else 0.0


@dataclass(frozen=True)
class SecondDomain(Augmentation):
    """Rows of ``data`` beside the own ones; ``exponent`` 0 makes both domains equally large."""

    READS = "data"

    data: str = ""
    exponent: float = 0.3
    probability: float = field(default=1.0, kw_only=True)  # scales the added rows
    _rows: list[Row] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("exponent", 0 <= self.exponent <= 1, "between 0 and 1")

    def prepare(self, supplies: Supplies) -> None:
        if not self.data:
            raise UserError("SecondDomain(data=...) must name a file or folder with its rows.")
        self._rows[:] = supplies.read(self.data)

    def added(self, rows: list[Row], draw: Random) -> list[Row]:
        wanted = num_added(len(rows), len(self._rows), self.exponent)
        return sampled(self._rows, round(self.now("probability") * wanted), draw)
