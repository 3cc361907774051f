"""Who says which points of a search over a recipe are tried next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from heldout.core.search_space import Point, Range
from heldout.search.coordinate import next_points
from heldout.search.tried import Tried


@dataclass(frozen=True)
class Space:
    """What is searched: ranges by key, the point to begin with, and which numbers are whole."""

    ranges: Mapping[str, Range]
    start: Point
    whole: frozenset[str] = frozenset()


class Sampler(Protocol):
    """Nothing but a function of what was tried: an interrupted search goes on as if it had not."""

    def propose(self, tried: Sequence[Tried]) -> list[Point]:
        """Points that do not depend on each other's losses, none of them tried; the start first.

        Empty once there is nothing left to try. ``tried`` are the trials in their order, all of
        those that were proposed before.
        """


@dataclass(frozen=True)
class CoordinateSampler:
    """One setting at a time, see ``heldout.search.coordinate``: both neighbors go together."""

    space: Space
    cost: Callable[[Point], float] = lambda point: 0.0

    def propose(self, tried: Sequence[Tried]) -> list[Point]:
        return next_points(self.grids, self.space.start, self.cost, tried)

    @property
    def grids(self) -> dict[str, list[float]]:
        """The ranges, all of which are lists of numbers."""
        found = {}
        for key, values in self.space.ranges.items():
            assert isinstance(values, tuple), f"{key} is checked before"
            found[key] = [float(value) for value in values]
        return found
