"""What every sampler of a search keeps to, on a function whose lowest point is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from heldout.core.losses import DocumentLosses
from heldout.core.search_space import Between, point_key
from heldout.search.optuna_sampler import OptunaSampler
from heldout.search.sampler import CoordinateSampler, Space
from heldout.search.tried import Tried, settings_of, undecided

LISTS = {"train.learning_rate": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3), "train.max_epochs": (2, 4, 8, 16)}
ALL_KINDS = {
    "train.learning_rate": Between(1e-4, 1e-2, log=True),
    "train.batch_size": Between(4, 32, log=True),
    "train.max_epochs": (2.0, 4.0, 8.0, 16.0),
    "train.schedule": ("constant", "linear"),
    "regularizers.ema.horizon": Between(0.25, 4.0, log=True),
    "regularizers.ema.used": (True, False),
}
START = {
    "train.learning_rate": 1e-3,
    "train.batch_size": 8.0,
    "train.max_epochs": 4.0,
    "train.schedule": "constant",
    "regularizers.ema.used": False,
}
LIST_START = {"train.learning_rate": 1e-3, "train.max_epochs": 4.0}
WHOLE = frozenset({"train.batch_size"})
BUDGET = 8


def losses_at(point):
    loss = 3 + 0.05 * math.log2(point["train.learning_rate"] / 4e-3) ** 2
    loss += 0.02 * math.log2(point["train.max_epochs"] / 8) ** 2
    loss += 0.1 * (point.get("train.schedule") == "linear")
    loss -= 0.1 * point.get("regularizers.ema.used", False)
    tokens = np.full(24, 50)
    return DocumentLosses(loss * tokens, tokens, 4 * tokens, np.arange(24))


def samplers(kind, at_once=2):
    if kind == "coordinate":
        return CoordinateSampler(Space(LISTS, LIST_START))
    return OptunaSampler(kind, Space(ALL_KINDS, START, WHOLE), BUDGET, at_once, seed=1)


def searched(sampler, tried=(), losses=losses_at, budget=BUDGET):
    found = list(tried)
    while len(found) < budget:
        points = sampler.propose(found)
        if not points:
            break
        found += [Tried(p, losses(p)) for p in points[: budget - len(found)]]
    return found


KINDS = ["coordinate", "random", "tpe", pytest.param("gp", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", KINDS)
def test_starts_at_the_start_stays_in_the_ranges_and_tries_nothing_twice(kind):
    sampler = samplers(kind)
    found = searched(sampler)
    assert point_key(found[0].point) == point_key(sampler.space.start)
    assert len({point_key(each.point) for each in found}) == len(found)
    for each in found:
        for key, value in each.point.items():
            choices = sampler.space.ranges[key]
            if isinstance(choices, Between):
                assert choices.low <= value <= choices.high
                assert key not in WHOLE or float(value).is_integer()
            else:
                assert value in choices
        has_horizon = "regularizers.ema.horizon" in each.point
        assert has_horizon == each.point.get("regularizers.ema.used", False)
    assert min(each.loss for each in found) < found[0].loss


@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_from_files_to_the_same_points(kind):
    """Nothing is kept but the trials: after any of them a fresh sampler does as the first would."""
    whole = searched(samplers(kind))
    stored = [Tried.from_json(json.loads(json.dumps(each.to_json()))) for each in whole]
    rounds = [1, 3] if kind == "coordinate" else [2, 6]
    for num in rounds:
        again = searched(samplers(kind), stored[:num], budget=num + 2)
        assert [each.point for each in again] == [each.point for each in whole[: len(again)]]


@pytest.mark.parametrize("kind", KINDS)
def test_lives_with_trials_that_diverge_or_are_stopped(kind):
    def losses(point):
        return None if point["train.learning_rate"] > 2e-3 else losses_at(point)

    found = searched(samplers(kind), losses=losses)
    assert len(found) >= 4
    stopped = [replace(each, stopped_early=place % 2 == 1) for place, each in enumerate(found)]
    assert isinstance(samplers(kind).propose(stopped), list)
    assert searched(samplers(kind), losses=lambda point: None, budget=4)


def test_ends_where_there_is_nothing_new():
    small = Space({"train.schedule": ("constant", "linear")}, {"train.schedule": "linear"})
    found = searched(OptunaSampler("tpe", small, 9, 2), losses=lambda point: losses_of(3.0))
    assert [each.point["train.schedule"] for each in found] == ["linear", "constant"]


def losses_of(nats_per_token, noise=0.0, seed=0):
    tokens = np.full(24, 50)
    shares = np.random.default_rng(seed).normal(size=24)
    nll = nats_per_token * tokens + noise * (shares - shares.mean())
    return DocumentLosses(nll, tokens, 4 * tokens, np.arange(24))


def test_a_seed_more_goes_to_what_is_undecided_alone():
    surely = [Tried({"a": 1.0}, losses_of(3.0)), Tried({"a": 2.0}, losses_of(3.5))]
    assert undecided(surely) is None
    close = [Tried({"a": 1.0}, losses_of(3.0)), Tried({"a": 2.0}, losses_of(3.01, 30.0, 1))]
    assert undecided(close).point == {"a": 1.0}
    further = [*close, Tried({"a": 1.0}, losses_of(3.1), seed=1)]
    assert settings_of(further)[0].point == {"a": 2.0}, "3.05 is the mean of the first"
    assert undecided(further).point == {"a": 2.0}, "it has one seed yet"
    assert undecided([replace(surely[0], stopped_early=True)]) is None
