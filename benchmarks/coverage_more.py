"""Cells of ``coverage.py``: areas of membership, limits of ensembles, memorized rows.

Of each, ``groups`` is the number of what is resampled: groups on both sides of an area, groups of
documents of an ensemble, pairs of models of a row. An area is shown of 20 rows a side and more:
with one row a group, of 30 groups alone.
"""

# D draws, G groups, K members, P pairs of models

from collections.abc import Callable, Iterator

import numpy as np
from coverage_cell import Cell
from scipy.special import log_ndtr

from heldout.core.distributions import normal_p_value
from heldout.jobs.counterfactual.memorized_rows import row_interval
from heldout.probes.membership import Scores, area_difference
from heldout.scaling.ensemble import asymptote, ensemble_losses

# Areas under the curve: normal scores of two sides, so that only their distance matters


def normal_area(shift: float) -> float:
    """Of two normal sides with variance 1 whose means are ``shift`` apart, 0 or more."""
    return 1 - normal_p_value(shift / 2**0.5) / 2


def grouped_scores(sizes: Callable[[int], np.ndarray], alike: float):
    """Scores (D, rows) of variance 1, of which the share ``alike`` is the group's."""

    def draw(rng: np.random.Generator, D: int, G: int) -> tuple[np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(G), sizes(G))
        own = rng.normal(size=(D, G))[:, groups]
        rest = rng.normal(size=(D, len(groups)))
        return alike**0.5 * own + (1 - alike) ** 0.5 * rest, groups

    return draw


def one(G: int) -> np.ndarray:
    return np.ones(G, dtype=int)


def five(G: int) -> np.ndarray:
    return np.full(G, 5)


def first_holds_half(G: int) -> np.ndarray:
    return np.array([G - 1] + [1] * (G - 1))


def areas_of(members_DM: np.ndarray, others_DH: np.ndarray) -> np.ndarray:
    return (members_DM[:, :, None] > others_DH[:, None, :]).mean(axis=(1, 2))


def in_parts(estimate: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """The estimates of many draws, a few hundred at a time."""
    return np.concatenate(
        [
            estimate(*(array[start : start + 250] for array in arrays))
            for start in range(0, len(arrays[0]), 250)
        ]
    )


def exponential_area_cells() -> Iterator[Cell]:
    """Exponential scores whose means are ``ratio`` apart, alike as normal scores would be."""
    for kind, ratio, sizes, alike in (
        ("exponential, .95, five rows", 20.0, five, 0.3),
        ("exponential, .98, five rows", 60.0, five, 0.3),
        ("exponential, .95, one row", 20.0, one, 0.0),
    ):
        scores = grouped_scores(sizes, alike)

        def draw(rng, D, G, scores=scores, ratio=ratio):
            (a, groups), (b, _) = scores(rng, D, G), scores(rng, D, G)
            a, b = (-log_ndtr(-side) for side in (a, b))
            return a * ratio, b, np.broadcast_to(groups, a.shape)

        yield Cell(
            "membership area",
            kind,
            ratio / (1 + ratio),
            draw,
            lambda a, b, groups: in_parts(areas_of, a, b),
            lambda a, b, groups: Scores(a, groups, b, groups).interval(),
            is_extra=True,
        )


def area_cells() -> Iterator[Cell]:
    for kind, shift, sizes, alike, extra in (
        ("normal", 1.0, five, 0.3, False),
        ("normal, one row", 1.0, one, 0.0, False),
        ("area .5, one row", 0.0, one, 0.0, False),
        ("area near 1, one row", 2.4, one, 0.0, False),
        ("area near 1, five rows", 2.4, five, 0.3, False),
        ("half, normal", 1.0, first_holds_half, 0.3, False),
        ("five rows, all alike", 1.0, five, 0.9, True),
    ):
        scores = grouped_scores(sizes, alike)

        def draw(rng, D, G, scores=scores, shift=shift):
            (a, groups), (b, _) = scores(rng, D, G), scores(rng, D, G)
            return a + shift, b, np.broadcast_to(groups, a.shape)

        yield Cell(
            "membership area",
            kind,
            normal_area(shift),
            draw,
            lambda a, b, groups: in_parts(areas_of, a, b),
            lambda a, b, groups: Scores(a, groups, b, groups).interval(),
            is_extra=extra,
        )


def area_difference_cells() -> Iterator[Cell]:
    """Scores of two models of the same rows, with a correlation of .6."""
    for kind, shifts, sizes, alike, extra in (
        ("normal", (1.2, 0.4), five, 0.3, False),
        ("normal, one row", (1.2, 0.4), one, 0.0, False),
        ("no difference, one row", (0.5, 0.5), one, 0.0, False),
        ("area near 1, one row", (2.4, 0.4), one, 0.0, False),
        ("area near 1, five rows", (2.4, 0.4), five, 0.3, False),
        ("half, normal", (1.2, 0.4), first_holds_half, 0.3, False),
    ):
        scores = grouped_scores(sizes, alike)

        def draw(rng, D, G, scores=scores, shifts=shifts):
            sides = []
            for moved in (1, 0):
                (shared, groups), (own, _), (other, _) = (scores(rng, D, G) for _ in range(3))
                for shift, rest in zip(shifts, (own, other), strict=True):
                    sides.append(0.6**0.5 * shared + 0.4**0.5 * rest + moved * shift)
            return (*sides, np.broadcast_to(groups, sides[0].shape))

        def estimate(a, b, c, d, groups):
            return in_parts(areas_of, a, c) - in_parts(areas_of, b, d)

        def interval(a, b, c, d, groups):
            model, control = Scores(a, groups, c, groups), Scores(b, groups, d, groups)
            return area_difference(model, control).interval

        truth = normal_area(shifts[0]) - normal_area(shifts[1])
        yield Cell("membership difference", kind, truth, draw, estimate, interval, is_extra=extra)


# Limits of ensembles: losses with a part of the text, of the group, of the member and of both


def ensemble_cells() -> Iterator[Cell]:
    """Of K members; members differ by .3 on a token, .1 on a group and .03 as a whole, in nats.

    A mixture without end costs exp-mean of the members: the text's part less half their variance.
    """
    token, in_group, whole = 0.3, 0.1, 0.03
    gain = (token**2 + in_group**2 + whole**2) / 2

    def text(values: str) -> Callable[[np.random.Generator, int, int], np.ndarray]:
        if values == "normal":
            return lambda rng, D, G: rng.normal(3, 0.5, (D, G))
        floor = 1 if values == "1 + log_normal" else 0
        return lambda rng, D, G: floor + 4 ** (1 - floor) * rng.lognormal(0, 1, (D, G))

    for kind, values, K, sizes, mean, extra in (
        ("normal", "normal", 5, five, 3.0, False),
        ("log_normal", "log_normal", 5, five, 4 * np.exp(0.5), False),
        ("3 members, normal", "normal", 3, five, 3.0, False),
        ("half, normal", "normal", 5, first_holds_half, 3.0, False),
        ("1 + log_normal", "1 + log_normal", 5, five, 1 + np.exp(0.5), True),
    ):

        def draw(rng, D, G, values=values, K=K, sizes=sizes):
            groups = np.repeat(np.arange(G), sizes(G))
            shape = (D, K, len(groups))
            nats = text(values)(rng, D, G)[:, groups][:, None]
            nats = nats + token * rng.normal(size=shape)
            nats = nats + in_group * rng.normal(size=(D, K, G))[:, :, groups]
            nats = nats + whole * rng.normal(size=(D, K, 1))
            return nats, np.broadcast_to(groups, (D, len(groups)))

        yield Cell(
            "ensemble limit",
            kind,
            mean - gain,
            draw,
            lambda nats, groups: np.array(
                [ensemble_losses(*each).fitted() for each in zip(nats, groups, strict=True)]
            ),
            lambda nats, groups: asymptote(ensemble_losses(nats, groups)).limit.interval,
            is_extra=extra,
            oracle_draws=4000,
        )


# Rows of a counterfactual run: accuracy with and without the row, by pairs of models


def row_cells() -> Iterator[Cell]:
    def tokens(num: int, shares: tuple[float, float], alike: float):
        """Each model is right on a token with a probability of its own: beta-binomial."""

        def draw(rng, D, P):
            total = (1 - alike) / alike
            sides = [
                rng.binomial(num, rng.beta(share * total, (1 - share) * total, (D, P))) / num
                for share in shares
            ]
            return (np.stack(sides, axis=-1),)

        return draw

    def normal(rng, D, P):
        return (np.stack([rng.normal(0.6, 0.08, (D, P)), rng.normal(0.4, 0.08, (D, P))], axis=-1),)

    for kind, truth, draw, num, extra in (
        ("normal", 0.2, normal, 0, False),
        ("100 tokens", 0.3, tokens(100, (0.6, 0.3), 0.05), 100, False),
        ("share near 1, 10 tokens", 0.1, tokens(10, (0.95, 0.85), 0.1), 10, False),
        ("share near 0, 10 tokens", 0.1, tokens(10, (0.15, 0.05), 0.1), 10, False),
        ("share near 0, 100 tokens, skewed", 0.1, tokens(100, (0.15, 0.05), 0.2), 100, False),
        ("share .03, 10 tokens", 0.02, tokens(10, (0.03, 0.01), 0.1), 10, True),
    ):
        yield Cell(
            "memorized row",
            kind,
            truth,
            draw,
            lambda a: (a[..., 0] - a[..., 1]).mean(-1),
            row_interval,
            (lambda P, num=num: 1 / (P * num)) if num else (lambda P: 0.0),
            extra,
        )


def more_cells() -> Iterator[Cell]:
    yield from area_cells()
    yield from exponential_area_cells()
    yield from area_difference_cells()
    yield from ensemble_cells()
    yield from row_cells()
