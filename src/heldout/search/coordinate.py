"""Search by coordinates: one setting at a time, until every neighbor of the point is no better.

Grids are short lists whose values lie a factor of about 2 apart (epochs, learning rate, weight
decay). The **certificate** is the table of all neighbors of the chosen point with their losses: as
Kim et al. 2025 (arXiv 2509.14786) tune what they compare. It says that the point is locally the
best one of the grid, not that it is the best one.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.errors import UserError
from heldout.core.finite import without_infinity
from heldout.core.losses import DocumentLosses
from heldout.core.run_files import Compared, Neighbor
from heldout.core.search_space import Point, point_key
from heldout.search.tried import Tried, by_group

Grids = Mapping[str, Sequence[float]]
# Yields points and is sent what they reached; ends with the point that none of its neighbors beats.
_Path = Generator[list[Point], list[Tried], Tried]


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
    grids: Grids,
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
    refuse_unsound(grids, start, max_trials)
    trials: dict[tuple, Tried] = {}
    earlier = {point_key(tried.point): tried for tried in known}

    def tried_at(point: Point) -> Tried:
        key = point_key(point)
        if key not in trials:
            if len(trials) >= max_trials:
                raise _BudgetSpent
            if key in earlier:
                trials[key] = earlier[key]
            else:
                losses = evaluate(dict(point))
                trials[key] = Tried(dict(point), losses and by_group(losses), cost(point))
                keep(trials[key])
        return trials[key]

    path = _path(grids, start, cost)
    points = next(path)
    try:
        while True:
            points = path.send([tried_at(point) for point in points])
    except StopIteration as end:
        current = end.value
    except _BudgetSpent:
        # The lowest of all that was tried: no neighbor of it can beat it, where they were tried.
        current = min(trials.values(), key=lambda tried: (tried.loss, tried.cost))
    return _result(current, trials, grids, max_trials)


def next_points(
    grids: Grids, start: Point, cost: Callable[[Point], float], tried: Sequence[Tried]
) -> list[Point]:
    """Where ``search_coordinates`` looks next after ``tried``: one point, or both neighbors.

    Empty at its end.
    """
    known = {point_key(each.point): each for each in tried}
    path = _path(grids, start, cost)
    points = next(path)
    try:
        while all(point_key(point) in known for point in points):
            points = path.send([known[point_key(point)] for point in points])
    except StopIteration:
        return []
    return [point for point in points if point_key(point) not in known]


def _path(grids: Grids, start: Point, cost: Callable[[Point], float]) -> _Path:
    (current,) = yield [start]
    unmoved = 0  # coordinates in a row
    while unmoved < len(grids):
        for name in grids:
            moved = False
            while True:
                points = sorted(_neighbors(current.point, name, grids), key=cost)
                beating = [each for each in (yield points) if _beats(each, current)]
                if not beating:
                    break
                current = min(beating, key=lambda tried: (tried.loss, tried.cost))
                moved = True
            unmoved = 0 if moved else unmoved + 1
            if unmoved == len(grids):
                break
    return current


class _BudgetSpent(Exception):
    pass


def _result(
    current: Tried,
    trials: Mapping[tuple, Tried],
    grids: Grids,
    max_trials: int,
) -> CoordinateSearch:
    listed = {name: list(values) for name, values in grids.items()}
    if current.losses is None:
        sentence = f"No certificate: every one of {len(trials)} points diverged."
        return CoordinateSearch(None, [], False, [], sentence, list(trials.values()), listed)
    neighbors, untried = [], 0
    for name in grids:
        for point in _neighbors(current.point, name, grids):
            tried = trials.get(point_key(point))
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
    value = float(tried.point[name])
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


def _neighbors(point: Point, name: str, grids: Grids) -> list[Point]:
    values = list(grids[name])
    place = values.index(float(point[name]))
    return [
        {**point, name: values[index]}
        for index in (place - 1, place + 1)
        if 0 <= index < len(values)
    ]


def refuse_unsound(grids: Grids, start: Point, max_trials: int) -> None:
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
