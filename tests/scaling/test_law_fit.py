import numpy as np
import pytest
from made_up_laws import TRUE, observed

from heldout.core.errors import UserError
from heldout.jobs.planning.fitted_law import all_laws
from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.fit import fit
from heldout.scaling.huber import huber, objective
from heldout.scaling.runs import Runs

LAWS = {law.name: law for law in all_laws()}


def test_huber_by_hand():
    np.testing.assert_allclose(huber(np.array([0.5, -2.0, 1.0]), 1.0), [0.125, 1.5, 0.5])


@pytest.mark.parametrize("name", sorted(set(LAWS) - {"practical", "muennighoff"}))
def test_a_law_is_found_in_its_own_runs(name):
    law = LAWS[name]
    found = fit(law, observed(law))
    assert found.objective < 1e-12
    np.testing.assert_allclose(found.values, law.values(TRUE[name]), rtol=1e-3)
    assert found.certificate.is_certain


@pytest.mark.parametrize("name", ["practical", "muennighoff"])
def test_the_loss_of_a_law_is_found_in_its_own_runs(name):
    law = LAWS[name]
    found = fit(law, observed(law))
    assert found.rms < 1e-4


def test_the_optimum_is_that_of_a_plain_search():
    """Nelder and Mead's downhill simplex, restarted, ends no lower; the gradient is zero."""
    optimize = pytest.importorskip("scipy.optimize")
    law, runs = Chinchilla(), observed(Chinchilla(), noise=0.02, repeats=False)
    found = fit(law, runs)
    best = np.inf
    z = np.array([np.log(1.7), np.log(300), np.log(1500), 0.33, 0.36])
    for _ in range(6):
        result = optimize.minimize(
            lambda z: objective(law, runs, np.r_[np.exp(z[:3]), z[3:]]),
            z,
            method="Nelder-Mead",
            options={"maxiter": 4000, "xatol": 1e-10, "fatol": 1e-14},
        )
        z, best = result.x, min(best, result.fun)
    assert found.objective <= best * (1 + 1e-9)
    assert found.objective == pytest.approx(best, rel=1e-3)
    assert found.certificate.gradient_norm < 1e-9
    assert found.certificate.num_same == found.certificate.num_starts


def test_outliers_hardly_move_it():
    law, runs = Chinchilla(), observed(Chinchilla(), noise=0.002, repeats=False)
    loss = runs.loss.copy()
    loss[[3, 11]] *= 1.5
    spoiled = fit(law, Runs.of(runs.N, runs.D, loss)).parameters
    for name in ("alpha", "beta", "E"):
        assert spoiled[name] == pytest.approx(TRUE["chinchilla"][name], rel=0.1)


def test_held_parameters_stay():
    law, runs = Chinchilla(), observed(Chinchilla(), noise=0.01)
    found = fit(law, runs, held={"E": 1.5, "alpha": 0.3})
    assert (found.parameters["E"], found.parameters["alpha"]) == (1.5, 0.3)
    assert found.objective > fit(law, runs).objective
    with pytest.raises(UserError, match="no parameter 'F'"):
        fit(law, runs, held={"F": 1.0})


def test_units_of_tokens_do_not_matter():
    law, runs = Chinchilla(), observed(Chinchilla(), noise=0.01, repeats=False)
    first = fit(law, runs)
    second = fit(law, Runs.of(runs.N / 1e6, runs.D / 1e9, runs.loss))
    assert second.objective == pytest.approx(first.objective, rel=1e-7)
    assert second.parameters["alpha"] == pytest.approx(first.parameters["alpha"], rel=1e-4)


def test_too_little_is_refused():
    runs = observed(Chinchilla())
    with pytest.raises(UserError, match="5 parameters and there are 5 runs: at least 6"):
        fit(Chinchilla(), runs[:5])
    with pytest.raises(UserError, match="one model size"):
        fit(Chinchilla(), runs[runs.N < 3e7])
