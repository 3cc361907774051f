"""The best allocation against the closed form, turning points, serving, and what lies outside."""

import math

import numpy as np
import pytest
from made_up_laws import TRUE, observed

from heldout.scaling.chinchilla import Chinchilla, chinchilla_loss, compute_optimum
from heldout.scaling.lovelace import Lovelace
from heldout.scaling.optimum import Limits, best_point, best_points, trained
from heldout.scaling.published import EPOCHS, LAWS, WEIGHT_DECAY
from heldout.scaling.reach import outside, place, ranges
from heldout.scaling.serving import cheapest, shortest_training

CHINCHILLA, LOVELACE = Chinchilla(), Lovelace()
C_VALUES, L_VALUES = CHINCHILLA.values(TRUE["chinchilla"]), LOVELACE.values(TRUE["lovelace"])
UNLIMITED = 1e18


@pytest.mark.parametrize("flops", [1e17, 1e20, 1e24])
def test_the_optimum_is_that_of_the_closed_form(flops):
    best = best_point(CHINCHILLA, C_VALUES, Limits(UNLIMITED, flops))
    assert best == pytest.approx(compute_optimum(flops, **TRUE["chinchilla"]), rel=1e-4)
    assert math.prod(best) == pytest.approx(flops / 6)


def test_a_given_size_trains_as_long_as_it_may():
    assert best_point(CHINCHILLA, C_VALUES, Limits(1e9, 1e20, 4.0), N=1e8) == (1e8, 4e9)
    assert best_point(CHINCHILLA, C_VALUES, Limits(1e15, 1e20), N=1e8)[1] == pytest.approx(
        1e20 / 6e8
    )


def test_the_loss_turns_up_where_its_derivative_is_zero():
    U, N = 1e9, 1e9
    _, D = best_point(LOVELACE, L_VALUES, Limits(U, math.inf, 1000.0), N)
    assert U < D < 1000 * U
    at, left, right = (
        float(LOVELACE.loss(trained([N], [D * factor], U), L_VALUES)[0])
        for factor in (1, 0.98, 1.02)
    )
    assert at < min(left, right)


def test_few_unique_tokens_make_the_best_model_smaller():
    """With the same compute, what is left goes unused rather than into overfitting."""
    flops = 1e21
    sizes = [best_point(LOVELACE, L_VALUES, Limits(U, flops, 1000.0)) for U in (1e8, 1e9, 1e12)]
    assert sizes[0][0] < sizes[1][0] < sizes[2][0]
    assert 6 * sizes[0][0] * sizes[0][1] < 0.5 * flops
    assert 6 * sizes[2][0] * sizes[2][1] == pytest.approx(flops)


def test_draws_have_the_optimum_of_the_fine_search_each():
    rng = np.random.default_rng(0)
    draws = L_VALUES * np.exp(0.02 * rng.normal(size=(5, len(L_VALUES))))
    limits = Limits(1e9, 1e20, 100.0)
    N_R, D_R = best_points(LOVELACE, draws, limits, None, around=5e8)
    for values, N, D in zip(draws, N_R, D_R, strict=True):
        best = LOVELACE.loss(
            trained(*np.array(best_point(LOVELACE, values, limits))[:, None], 1e9), values
        )
        assert LOVELACE.loss(trained([N], [D], 1e9), values) == pytest.approx(best, rel=5e-4)


def test_without_serving_the_cheapest_is_the_compute_optimum():
    N, D = compute_optimum(1e22, **TRUE["chinchilla"])
    target = float(chinchilla_loss(N, D, **TRUE["chinchilla"]))
    found = cheapest(CHINCHILLA, C_VALUES, Limits(UNLIMITED), target, 1e-3)
    size = found.N
    assert size == pytest.approx(N, rel=0.01)
    assert found.flops == pytest.approx(1e22, rel=1e-6)


def test_the_more_is_served_the_smaller_and_longer():
    N, D = compute_optimum(1e22, **TRUE["chinchilla"])
    target = float(chinchilla_loss(N, D, **TRUE["chinchilla"]))
    served = [
        cheapest(CHINCHILLA, C_VALUES, Limits(UNLIMITED), target, tokens)
        for tokens in (1e10, 1e12, 1e14)
    ]
    assert served[0].N > served[1].N > served[2].N
    assert served[0].D < served[1].D < served[2].D
    for each, tokens in zip(served, (1e10, 1e12, 1e14), strict=True):
        assert chinchilla_loss(each.N, each.D, **TRUE["chinchilla"]) <= target
        assert each.flops <= 6 * N * D + 2 * N * tokens
        assert each.serving_flops == pytest.approx(2 * each.N * tokens)


def test_the_cheapest_against_the_derivative():
    """At the optimum 6 D + 6 N dD/dN + 2 D_inf is zero along the line of equal loss."""
    target, tokens = 2.5, 1e12
    found = cheapest(CHINCHILLA, C_VALUES, Limits(UNLIMITED), target, tokens)
    N = found.N * np.array([0.999, 1.001])
    D = shortest_training(CHINCHILLA, C_VALUES, Limits(UNLIMITED), target, N)
    slope = (D[1] - D[0]) / (N[1] - N[0])
    assert 6 * found.D + 6 * found.N * slope + 2 * tokens == pytest.approx(
        0, abs=0.02 * 6 * found.D
    )


def test_a_loss_out_of_reach_has_no_training():
    assert cheapest(CHINCHILLA, C_VALUES, Limits(1e9, most_epochs=4.0), 1.85, 1e12) is None


def test_outside_names_the_axis_and_the_factor():
    runs = observed(LOVELACE)
    within = ranges(runs)
    assert outside(place(1e8, 4e10, 1e10), within) == []
    far = {each.axis: each for each in outside(place(3e10, 4e10, 1e10), within)}
    assert far["N"].factor == pytest.approx(10)
    assert "10 times above the runs (2e+07 to 3e+09)" in far["N"].words
    low = {each.axis: each for each in outside(place(1e8, 1e6, 1e6), within)}
    assert low["D"].factor == pytest.approx(2000)
    assert "2e+03 times below" in low["D"].words
    # A training of less than an epoch has seen less than U unique tokens.
    assert place(1e8, 1e6, 1e10)["U"] == 1e6


def test_published_constants_and_rules():
    for each in LAWS:
        loss = each.law.predict(trained([1e9], [2e10], 2e10), each.parameters)
        assert 2.4 < loss[0] < 2.8
    # 300M parameters on 209M unique tokens: tuned 1.6 and 16 epochs, on grids of factors of two.
    load = 3e8 / 209715200
    assert 0.8 < WEIGHT_DECAY(load) < 3.2
    assert 8 < EPOCHS(load) < 32
