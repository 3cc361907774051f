"""Search by coordinates: one setting at a time, until every neighbor of the point is no better.

Grids are short lists whose values lie a factor of about 2 apart (epochs, learning rate, weight
decay). The **certificate** is the table of all neighbors of the chosen point with their losses: as
Kim et al. 2025 (arXiv 2509.14786) tune what they compare. It says that the point is locally the
best one of the grid, not that it is the best one.
"""

# D documents

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.finite import without_infinity
from heldout.core.losses import DocumentLosses
from heldout.core.run_files import Compared, Neighbor

Point = dict[str, float]


@dataclass(frozen=True)
class Tried:
    """One point with the held-out losses it reached, None where training diverged.

    Documents of one group are added up, so that what is kept is small.
    """

    point: Point
    losses: DocumentLosses | None
    cost: float = 0.0  # in whatever unit, of this point beside others

    @property
    def loss(self) -> float:
        """Nats per token; infinite where training diverged."""
        return float("inf") if self.losses is None else self.losses.nats_per_token

    def to_json(self) -> dict[str, Any]:
        """All that ``from_json`` needs."""
        kept = self.losses
        return {
            "point": self.point,
            "cost": self.cost,
            "loss": None if kept is None else kept.nats_per_token,
            "losses": None
            if kept is None
            else {
                "nll_nats": kept.nll_nats_D.tolist(),
                "num_tokens": kept.num_tokens_D.tolist(),
                "num_bytes": kept.num_bytes_D.tolist(),
                "groups": kept.groups_D.tolist(),
            },
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Tried":
        """Inverse of ``to_json``."""
        kept = entry["losses"]
        losses = kept and DocumentLosses(
            np.array(kept["nll_nats"], dtype=np.float64),
            np.array(kept["num_tokens"], dtype=np.int64),
            np.array(kept["num_bytes"], dtype=np.int64),
            np.array(kept["groups"]),
        )
        return cls(dict(entry["point"]), losses, entry["cost"])


@dataclass(frozen=True)
class CoordinateSearch:
    """The chosen point, every point that was tried, and the certificate if there is one."""

    chosen: Tried | None  # None if every point diverged
    neighbors: list[Neighbor]  # of the chosen point, those that were tried
    is_certified: bool  # all of them were, and none is surely better
    edges: list[str]  # coordinates that the chosen point has at an end of their grids
    sentence: str
    trials: list[Tried]  # in their order
    grids: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """For records; losses of single groups are left out."""
        return {
            "chosen": self.chosen and self.chosen.point,
            "loss": self.chosen and self.chosen.loss,
            "is_certified": self.is_certified,
            "sentence": self.sentence,
            "edges": self.edges,
            "neighbors": [without_infinity(asdict(neighbor)) for neighbor in self.neighbors],
            "trials": [
                {"point": t.point, "loss": t.losses and t.loss, "cost": t.cost} for t in self.trials
            ],
            "grids": self.grids,
        }


def search_coordinates(
    evaluate: Callable[[Point], DocumentLosses | None],
    grids: Mapping[str, Sequence[float]],
    *,
    start: Point,
    max_trials: int,
    cost: Callable[[Point], float] = lambda point: 0.0,
    known: Sequence[Tried] = (),
    keep: Callable[[Tried], None] = lambda tried: None,
) -> CoordinateSearch:
    """Move along one coordinate after the other, as long as a neighbor beats the point.

    A neighbor beats the point if it is surely better (the paired interval over groups lies below
    zero), or if it is cheaper and its loss is not higher: ties go to the cheaper point. Every move
    lowers the loss, or keeps it and lowers the cost, so the search ends.

    ``evaluate`` trains at a point and returns its held-out losses, always of the same documents,
    or None if training diverged. It is called once for each point, at most ``max_trials`` times
    with the ``known`` trials of an interrupted search counted in; ``keep`` stores each new one.

    Raises UserError for a grid that is empty or not rising, and a start that is not on the grids.
    """
    _refuse_unsound(grids, start, max_trials)
    trials: dict[tuple, Tried] = {}
    earlier = {_key(tried.point): tried for tried in known}

    def tried_at(point: Point) -> Tried:
        key = _key(point)
        if key not in trials:
            if len(trials) >= max_trials:
                raise _BudgetSpent
            if key in earlier:
                trials[key] = earlier[key]
            else:
                losses = evaluate(dict(point))
                grouped = losses and _by_group(losses)
                trials[key] = Tried(dict(point), grouped, cost(point))
                keep(trials[key])
        return trials[key]

    current: Tried | None = None
    try:
        current = tried_at(start)
        unmoved = 0  # coordinates in a row
        while unmoved < len(grids):
            for name in grids:
                moved = False
                while True:
                    points = sorted(_neighbors(current.point, name, grids), key=cost)
                    beating = [t for t in map(tried_at, points) if _beats(t, current)]
                    if not beating:
                        break
                    current = min(beating, key=lambda tried: (tried.loss, tried.cost))
                    moved = True
                unmoved = 0 if moved else unmoved + 1
                if unmoved == len(grids):
                    break
    except _BudgetSpent:
        # The lowest of all that was tried: no neighbor of it can beat it, where they were tried.
        current = min(trials.values(), key=lambda tried: (tried.loss, tried.cost))
    return _result(current, trials, grids, max_trials)


class _BudgetSpent(Exception):
    pass


def _result(
    current: Tried,
    trials: Mapping[tuple, Tried],
    grids: Mapping[str, Sequence[float]],
    max_trials: int,
) -> CoordinateSearch:
    listed = {name: list(values) for name, values in grids.items()}
    if current.losses is None:
        sentence = f"No certificate: every one of {len(trials)} points diverged."
        return CoordinateSearch(None, [], False, [], sentence, list(trials.values()), listed)
    neighbors, untried = [], 0
    for name in grids:
        for point in _neighbors(current.point, name, grids):
            tried = trials.get(_key(point))
            if tried is None:
                untried += 1
                continue
            neighbors.append(_compared(name, tried, current))
    is_certified = bool(neighbors) and not untried
    edges = [
        f"{name} = {current.point[name]:g} is the {word} of its grid"
        for name, values in grids.items()
        for word, end in (("lowest", values[0]), ("highest", values[-1]))
        if current.point[name] == end
    ]
    words = ", ".join(f"{name} {value:g}" for name, value in current.point.items())
    if is_certified:
        sentence = (
            f"Certified after {len(trials)} points: none of the {len(neighbors)} neighbors of "
            f"{words} is surely better"
        )
        sentence += f" ({'; '.join(edges)})." if edges else "."
    elif not untried:
        sentence = f"No certificate: the grids hold no other point than {words}."
    else:
        sentence = (
            f"No certificate: the {max_trials} trials were used up with {untried} neighbors of "
            f"{words} untried."
        )
    return CoordinateSearch(
        current, neighbors, is_certified, edges, sentence, list(trials.values()), listed
    )


def _compared(name: str, tried: Tried, chosen: Tried) -> Neighbor:
    value = tried.point[name]
    if tried.losses is None:
        return Neighbor(name, value, None, None, None, "diverged")
    assert chosen.losses is not None
    difference = tried.losses.minus(chosen.losses)
    verdict: Compared = "worse" if difference.interval.low > 0 else "not surely better"
    return Neighbor(name, value, tried.loss, difference.value, difference.interval, verdict)


def _beats(tried: Tried, current: Tried) -> bool:
    if tried.losses is None:
        return False
    if current.losses is None:
        return True
    if tried.loss <= current.loss and tried.cost < current.cost:
        return True
    return tried.losses.minus(current.losses).interval.high < 0


def _neighbors(point: Point, name: str, grids: Mapping[str, Sequence[float]]) -> list[Point]:
    values = list(grids[name])
    place = values.index(point[name])
    return [
        {**point, name: values[index]}
        for index in (place - 1, place + 1)
        if 0 <= index < len(values)
    ]


def _by_group(losses: DocumentLosses) -> DocumentLosses:
    groups_G, index_D = np.unique(losses.groups_D, return_inverse=True)

    def summed(values_D: np.ndarray) -> np.ndarray:
        return np.bincount(index_D, weights=values_D, minlength=len(groups_G))

    return DocumentLosses(
        summed(losses.nll_nats_D),
        summed(losses.num_tokens_D).astype(np.int64),
        summed(losses.num_bytes_D).astype(np.int64),
        groups_G,
    )


def _key(point: Mapping[str, float]) -> tuple:
    return tuple(sorted((name, float(value)) for name, value in point.items()))


def _refuse_unsound(grids: Mapping[str, Sequence[float]], start: Point, max_trials: int) -> None:
    if not grids or set(start) != set(grids):
        raise UserError(
            f"The start must name every grid and nothing else: {sorted(grids)}, "
            f"got {sorted(start)}."
        )
    for name, values in grids.items():
        if not values or list(values) != sorted(set(values)):
            raise UserError(f"The grid of {name} must be rising values, got {list(values)}.")
        if start[name] not in values:
            raise UserError(
                f"The start must lie on the grid of {name}, {list(values)}, got {start[name]}."
            )
    if max_trials < 1:
        raise UserError(f"max_trials must be 1 or more, got {max_trials}.")
