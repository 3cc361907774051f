"""Every law against a reference implementation, run by run, written from its formula."""

import math

import numpy as np
import pytest
from made_up_laws import TRUE, grid

from heldout.core.errors import UserError
from heldout.jobs.planning.fitted_law import all_laws
from heldout.scaling.chinchilla import Chinchilla, compute_optimum
from heldout.scaling.huber import coordinates, from_coordinates
from heldout.scaling.practical import Practical
from heldout.scaling.runs import Runs, points

LAWS = {law.name: law for law in all_laws()}
L0 = math.log(50257)


def chinchilla(N, D, U, E, A, B, alpha, beta):
    return E + A / N**alpha + B / D**beta


def over_training(N, D, U, E, a, b, eta):
    M, C = D / N, 6 * N * D
    return E + (a * M**eta + b * M**-eta) * C**-eta


def muennighoff(N, D, U, E, A, B, alpha, beta, R_D, R_N):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    U_N = min(N, (U * G) ** (beta / alpha) * G)
    D_worth = U + U * R_D * (1 - math.exp(-max(D / U - 1, 0) / R_D))
    N_worth = U_N + U_N * R_N * (1 - math.exp(-max(N / U_N - 1, 0) / R_N))
    return E + A / N_worth**alpha + B / D_worth**beta


def lovelace(N, D, U, E, A, B, P, alpha, beta, delta, kappa):
    penalty = P * (D / U - 1) ** delta * (N / U) ** kappa if D / U > 1 + 1e-9 else 0.0
    return E + A / N**alpha + B / D**beta + penalty


def practical(N, D, U, E, a, b, c, alpha, beta, gamma, delta):
    h = a / N**alpha + b / D**beta + c * N**gamma / U**delta
    return E + (L0 - E) * h / (1 + h)


def hybrid(N, D, U, E, a, b, P, alpha, beta, delta, kappa):
    h = lovelace(N, D, U, 0, a, b, P, alpha, beta, delta, kappa)
    return E + (L0 - E) * h / (1 + h)


TWINS = (chinchilla, over_training, muennighoff, lovelace, practical, hybrid)


def test_every_law_has_a_twin():
    assert {twin.__name__ for twin in TWINS} == set(LAWS) == set(TRUE)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.__name__)
def test_loss_is_the_formula(twin):
    law, runs = LAWS[twin.__name__], grid()
    expected = [twin(*run, **TRUE[law.name]) for run in zip(runs.N, runs.D, runs.U, strict=True)]
    np.testing.assert_allclose(law.predict(runs, TRUE[law.name]), expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(LAWS))
def test_gradient_is_that_of_the_loss(name):
    law, runs = LAWS[name], grid()
    values = law.values(TRUE[name])
    gradient = law.gradient(runs, values)
    assert gradient.shape == (len(runs), len(values))
    for p in range(len(values)):
        step = np.zeros(len(values))
        step[p] = 1e-6 * values[p]
        slope = (law.loss(runs, values + step) - law.loss(runs, values - step)) / (2 * step[p])
        np.testing.assert_allclose(gradient[:, p], slope, rtol=2e-4, atol=1e-9 / values[p])


@pytest.mark.parametrize("name", sorted(LAWS))
def test_many_values_at_once_equal_one_by_one(name):
    law, runs = LAWS[name], grid()
    values = law.values(TRUE[name]) * np.array([[1.0], [1.1], [0.9]])
    np.testing.assert_allclose(law.loss(runs, values)[2], law.loss(runs, values[2]), rtol=1e-12)
    np.testing.assert_allclose(
        law.gradient(runs, values)[1], law.gradient(runs, values[1]), rtol=1e-12
    )
    np.testing.assert_allclose(from_coordinates(law, coordinates(law, values)), values, rtol=1e-12)


def test_compute_optimum_is_the_lowest_point_of_the_isoflop_curve():
    law, flops = Chinchilla(), 1e21
    N = np.geomspace(1e8, 1e11, 200_001)
    loss = law.predict(points(N, flops / 6 / N), TRUE["chinchilla"])
    best, tokens = compute_optimum(flops, **TRUE["chinchilla"])
    assert N[loss.argmin()] == pytest.approx(best, rel=1e-3)
    assert 6 * best * tokens == pytest.approx(flops)


def test_saturating_laws_stay_below_a_uniform_guess():
    runs = points([1e12], [1e13], [1e5])
    for name in ("practical", "hybrid"):
        assert LAWS[name].predict(runs, TRUE[name])[0] < L0
    assert LAWS["lovelace"].predict(runs, TRUE["lovelace"])[0] > L0


def test_only_penalties_turn_up_with_epochs():
    U, epochs = 1e8, np.array([1.0, 10, 100, 1000])
    runs = points(np.full(4, 1e9), U * epochs, U)
    for name in ("lovelace", "hybrid"):
        assert LAWS[name].SHOWS_OVERFITTING
        assert np.diff(LAWS[name].predict(runs, TRUE[name]))[-1] > 0
    assert not LAWS["muennighoff"].SHOWS_OVERFITTING
    assert (np.diff(LAWS["muennighoff"].predict(runs, TRUE["muennighoff"])) <= 0).all()


def test_bad_parameters_and_runs_are_told():
    with pytest.raises(UserError, match="did you mean 'alpha'"):
        Chinchilla().values({**TRUE["chinchilla"], "alhpa": 1})
    with pytest.raises(UserError, match="also needs beta"):
        Chinchilla().values(dict.fromkeys(("E", "A", "B", "alpha"), 1))
    with pytest.raises(UserError, match="uniform_loss"):
        Practical(uniform_loss=0.0)
    with pytest.raises(UserError, match="must be positive"):
        Runs.of([1e6, 1e7], [1e8, 1e9], [3.0, -1.0])
