"""Functions whose lowest point is known; the losses are those of documents, as in a search."""

import json
import math

import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.search.coordinate import search_coordinates
from heldout.search.tried import Tried

GRIDS = {
    "epochs": [1, 2, 4, 8, 16, 32],
    "rate": [1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3],
    "decay": [0.0, 0.1, 0.2, 0.4, 0.8, 1.6],
}
START = {"epochs": 2, "rate": 8e-4, "decay": 0.1}


def losses_of(nats_per_token, noise=0.0, seed=0):
    """24 documents in twelve groups; the noise is of single documents and sums to zero."""
    tokens = np.arange(10, 250, 10)
    shares = np.random.default_rng(seed).normal(size=24)
    shares -= shares.mean()
    groups = np.repeat([f"speech {i}" for i in range(12)], 2)
    return DocumentLosses(nats_per_token * tokens + noise * shares, tokens, 4 * tokens, groups)


class Bowl:
    """3 + the squared distance in factors of two to ``lowest``, with a term that couples two."""

    def __init__(self, lowest, coupling=0.0, diverges=lambda point: False):
        self.lowest, self.coupling, self.diverges = lowest, coupling, diverges
        self.called = []

    def at(self, point):
        apart = [GRIDS[n].index(point[n]) - GRIDS[n].index(self.lowest[n]) for n in GRIDS]
        return 3 + 0.01 * (sum(a * a for a in apart) + self.coupling * apart[0] * apart[1])

    def __call__(self, point):
        self.called.append(tuple(point.values()))
        return None if self.diverges(point) else losses_of(self.at(point))


@pytest.mark.parametrize(
    "lowest",
    [
        {"epochs": 16, "rate": 2e-4, "decay": 0.8},
        {"epochs": 2, "rate": 8e-4, "decay": 0.1},
        {"epochs": 4, "rate": 4e-4, "decay": 1.6},
    ],
)
@pytest.mark.parametrize("coupling", [0.0, 0.9, -0.9])
def test_finds_the_lowest_point_and_certifies_it_by_every_neighbor(lowest, coupling):
    bowl = Bowl(lowest, coupling)
    found = search_coordinates(bowl, GRIDS, start=START, max_trials=100)
    assert found.chosen.point == lowest
    assert found.is_certified
    assert len(bowl.called) == len(set(bowl.called)) == len(found.trials), "each point once"
    around = {(n.coordinate, n.value) for n in found.neighbors}
    for name, values in GRIDS.items():
        place = values.index(lowest[name])
        expected = {(name, v) for v in values[max(0, place - 1) : place + 2] if v != lowest[name]}
        assert expected <= around
    for neighbor in found.neighbors:
        exact = bowl.at({**lowest, neighbor.coordinate: neighbor.value})
        assert neighbor.loss == pytest.approx(exact, abs=1e-12)
        assert neighbor.difference == pytest.approx(exact - 3, abs=1e-12)
        assert neighbor.verdict == "worse"
    assert ("highest of its grid" in found.sentence) == (lowest["decay"] == 1.6)


def test_the_certificate_is_of_the_neighbors_and_not_of_all_points():
    """A narrow diagonal valley: from its wall no single coordinate leads on."""
    lowest = {"epochs": 4, "rate": 4e-4, "decay": 0.1}
    bowl = Bowl(lowest, coupling=-1.9)
    start = {"epochs": 8, "rate": 8e-4, "decay": 0.1}
    found = search_coordinates(bowl, GRIDS, start=start, max_trials=100)
    assert found.is_certified
    assert found.chosen.point == start
    assert found.chosen.loss > bowl.at(lowest)


def test_a_neighbor_that_diverges_is_in_the_certificate_as_such():
    lowest = {"epochs": 8, "rate": 4e-4, "decay": 0.4}
    bowl = Bowl(lowest, diverges=lambda point: point["rate"] > 4e-4)
    start = {**START, "rate": 1e-4}
    found = search_coordinates(bowl, GRIDS, start=start, max_trials=100)
    assert found.chosen.point == lowest
    assert found.is_certified
    (above,) = (n for n in found.neighbors if n.coordinate == "rate" and n.value == 8e-4)
    assert (above.verdict, above.loss, above.interval) == ("diverged", None, None)
    json.dumps(found.to_json(), allow_nan=False)


def test_leaves_a_start_that_diverges_and_says_so_where_all_do():
    bowl = Bowl(START, diverges=lambda point: point["rate"] > 4e-4)
    found = search_coordinates(bowl, GRIDS, start=START, max_trials=100)
    assert found.chosen.point == {**START, "rate": 4e-4}
    assert found.is_certified
    found = search_coordinates(lambda point: None, GRIDS, start=START, max_trials=100)
    assert found.chosen is None
    assert not found.is_certified
    assert "diverged" in found.sentence
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("max_trials", [1, 5, 9])
def test_without_trials_for_every_neighbor_there_is_no_certificate(max_trials):
    bowl = Bowl({"epochs": 16, "rate": 2e-4, "decay": 0.8})
    found = search_coordinates(bowl, GRIDS, start=START, max_trials=max_trials)
    assert len(bowl.called) == max_trials
    assert not found.is_certified
    assert found.sentence.startswith("No certificate")
    assert found.chosen.loss == min(tried.loss for tried in found.trials)


def test_without_neighbors_there_is_no_certificate():
    found = search_coordinates(
        lambda point: losses_of(3.0), {"rate": [1e-3]}, start={"rate": 1e-3}, max_trials=9
    )
    assert not found.is_certified
    assert found.sentence == "No certificate: the grids hold no other point than rate 0.001."


def test_an_interrupted_search_goes_on_and_ends_where_a_whole_one_does():
    lowest = {"epochs": 16, "rate": 2e-4, "decay": 0.8}
    whole = search_coordinates(Bowl(lowest), GRIDS, start=START, max_trials=100)
    kept = []
    first = Bowl(lowest)

    def interrupted(point):
        if len(first.called) == 7:
            raise KeyboardInterrupt
        return first(point)

    with pytest.raises(KeyboardInterrupt):
        search_coordinates(interrupted, GRIDS, start=START, max_trials=100, keep=kept.append)
    stored = [Tried.from_json(json.loads(json.dumps(tried.to_json()))) for tried in kept]
    second = Bowl(lowest)
    resumed = search_coordinates(second, GRIDS, start=START, max_trials=100, known=stored)
    assert len(first.called) == len(stored) == 7
    assert not set(first.called) & set(second.called)
    assert resumed.to_json() == whole.to_json()


def test_ties_go_to_the_cheaper_point():
    """The epochs do not matter: the fewest are taken."""
    flat = {"epochs": GRIDS["epochs"]}
    found = search_coordinates(
        lambda point: losses_of(3.0),
        flat,
        start={"epochs": 8},
        max_trials=100,
        cost=lambda point: point["epochs"],
    )
    assert found.chosen.point == {"epochs": 1}
    assert found.is_certified
    (neighbor,) = found.neighbors
    assert neighbor.verdict == "not surely better"
    assert neighbor.difference == 0


def test_moves_only_for_what_is_surely_better():
    """A gain within the scatter of the documents is none; a dearer point is not taken for it."""

    def noisy(point):
        return losses_of(
            3 - 1e-3 * math.log2(point["epochs"]), noise=5.0, seed=int(point["epochs"])
        )

    grid = {"epochs": GRIDS["epochs"]}
    cost = {"cost": lambda point: point["epochs"], "max_trials": 100}
    found = search_coordinates(noisy, grid, start={"epochs": 4}, **cost)
    assert found.chosen.point == {"epochs": 4}
    dearer = next(n for n in found.neighbors if n.value == 8)
    assert dearer.difference < 0 < dearer.interval.high
    assert dearer.verdict == "not surely better"
    sure = search_coordinates(
        lambda point: losses_of(3 - 1e-3 * math.log2(point["epochs"])),
        grid,
        start={"epochs": 4},
        **cost,
    )
    assert sure.chosen.point == {"epochs": 32}


@pytest.mark.parametrize(
    ("grids", "start", "word"),
    [
        ({}, {}, "every grid"),
        ({"rate": [1, 2]}, {"decay": 1}, "every grid"),
        ({"rate": [2, 1]}, {"rate": 1}, "rising"),
        ({"rate": [1, 1]}, {"rate": 1}, "rising"),
        ({"rate": [1, 2]}, {"rate": 3}, "on the grid of rate"),
    ],
)
def test_refuses_what_is_no_grid(grids, start, word):
    with pytest.raises(UserError, match=word):
        search_coordinates(lambda point: losses_of(3), grids, start=start, max_trials=9)


def test_needs_a_trial():
    with pytest.raises(UserError, match="max_trials"):
        search_coordinates(lambda p: losses_of(3), {"rate": [1]}, start={"rate": 1}, max_trials=0)
