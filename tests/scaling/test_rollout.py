import numpy as np
import pytest
from made_up_laws import TRUE, observed

from heldout.core.errors import UserError
from heldout.jobs.planning.fitted_law import all_laws
from heldout.scaling.fit import fit
from heldout.scaling.rollout import (
    Rollout,
    choose,
    correction_notes,
    corrections,
    cutoffs,
    forecast_error,
    rollouts,
)
from heldout.scaling.runs import Runs, points

LAWS = {law.name: law for law in all_laws()}
NO_BIAS = dict.fromkeys(("chinchilla", "over_training", "hybrid"), 0.0)


def test_cutoffs_split_at_values_that_exist():
    values = np.array([1.0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    assert cutoffs(values) == [2.0, 3.0, 4.0]
    assert cutoffs(np.ones(5)) == []


def test_the_law_that_made_the_runs_is_chosen():
    laws = [LAWS[name] for name in ("chinchilla", "lovelace", "muennighoff")]
    runs = observed(LAWS["lovelace"], noise=0.003)
    made = rollouts(laws, runs, axes=("compute", "epochs"))
    assert {each.axis for each in made} == {"compute", "epochs"}
    for each in made:
        assert each.num_train + each.num_test == len(runs)
    choice = choose(laws, runs, made)
    assert choice.law == "lovelace"
    assert choice.left_out == ("chinchilla", "muennighoff")


def test_the_median_forgives_one_cutoff_and_ties_go_to_the_simpler_law():
    runs = observed(LAWS["chinchilla"], repeats=False)
    laws = [LAWS["chinchilla"], LAWS["over_training"], LAWS["hybrid"]]
    made = [
        Rollout("compute", c, 10, 10, {"chinchilla": a, "over_training": b, "hybrid": h}, NO_BIAS)
        for c, a, b, h in ((1, 0.1, 0.101, 0.2), (2, 0.1, 0.101, 0.2), (3, 9.0, 9.0, 0.2))
    ]
    assert choose(laws, runs, made).law == "over_training"
    with pytest.raises(UserError, match="too few for rolled-out forecasts"):
        choose(laws, runs, [])


def test_nothing_is_forecast_from_one_value_along_the_axis():
    grid = np.meshgrid(np.geomspace(2e7, 3e9, 6), [1e9, 1e10], [1.0, 4.0, 30.0])
    N, U, epochs = (each.ravel() for each in grid)
    law = LAWS["chinchilla"]
    loss = law.predict(points(N, U * epochs, U), TRUE["chinchilla"])
    runs = Runs.of(N, U * epochs, loss, U)
    assert rollouts([law], runs, axes=("unique",)) == []
    assert rollouts([law], runs, axes=("compute",))


def rolled(axis, *biases):
    """Cut-offs 1, 2, ... in falling order: their order must not matter."""
    found = [Rollout(axis, k, 9, 9, {"x": 0.1}, {"x": bias}) for k, bias in enumerate(biases)]
    return found[::-1]


def test_a_correction_is_the_last_error_where_all_err_to_one_side():
    made = [
        *rolled("compute", -0.3, -0.1, -0.02),
        *rolled("unique", 0.1, -0.01),
        *rolled("epochs", 0.2),
    ]
    assert corrections("x", made) == {"compute": pytest.approx(np.exp(-0.02))}
    assert corrections("x", rolled("epochs", 0.2, 0.1)) == {"epochs": pytest.approx(np.exp(0.1))}
    assert corrections("x", rolled("epochs", 0.0, 0.1)) == {}


def test_only_a_forecast_along_one_axis_is_corrected():
    """Errors along several are partly the same: two factors would correct them twice."""
    laws = [LAWS["chinchilla"]]
    made = [
        Rollout(axis, cutoff, 9, 9, {"chinchilla": 0.1}, {"chinchilla": -0.1})
        for axis in ("compute", "unique")
        for cutoff in (1, 2)
    ]
    runs = observed(LAWS["chinchilla"], repeats=False)
    assert choose(laws, runs, made).corrections == {}
    alone = choose(laws, runs, made, ("unique",))
    assert alone.corrections == {"unique": pytest.approx(np.exp(-0.1))}
    (said,) = correction_notes(alone)
    assert said.startswith("All rolled-out forecasts of chinchilla in unique tokens were too high")
    assert "0.905" in said


def test_a_correction_by_the_bias_leaves_the_spread():
    """Repetition costs more than a law without overfitting can know."""
    runs = observed(LAWS["lovelace"], noise=0.001)
    law = LAWS["muennighoff"]
    made = rollouts([law], runs, axes=("epochs",))
    assert made
    for each in made:
        inner = runs.epochs <= each.cutoff
        fitted, test = fit(law, runs[inner], num_starts=6), runs[~inner]
        bias, error = each.biases[law.name], each.errors[law.name]
        assert bias > 0
        assert forecast_error(fitted, test) == pytest.approx(error)
        spread = np.sqrt(error**2 - bias**2)
        assert forecast_error(fitted, test, np.exp(bias)) == pytest.approx(spread, rel=1e-4)
        assert forecast_error(fitted, test, np.exp(-bias)) > error
