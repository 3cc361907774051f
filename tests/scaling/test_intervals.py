import numpy as np
import pytest
from made_up_laws import TRUE, observed

from heldout.scaling import intervals
from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.fit import fit
from heldout.scaling.huber import minimize
from heldout.scaling.intervals import bootstrap, percentile_ranges, profile
from heldout.scaling.muennighoff import Muennighoff
from heldout.scaling.runs import Runs


@pytest.fixture(scope="module")
def fitted():
    return fit(Chinchilla(), observed(Chinchilla(), noise=0.005, repeats=False))


def test_profile_holds_the_truth_and_the_estimate(fitted):
    ranges = profile(fitted)
    for name, value in TRUE["chinchilla"].items():
        assert ranges[name].holds(value)
        assert ranges[name].holds(fitted.parameters[name])


def test_profile_ends_where_the_objective_has_risen_by_the_threshold(fitted):
    high = profile(fitted)["alpha"].high
    starts = fitted.values.copy()[None]
    starts[0, 3] = high
    held = np.array([[False, False, False, True, False]])
    there = minimize(fitted.law, fitted.runs, starts, delta=fitted.delta, held=held)
    rise = there.objective[0] - fitted.objective
    assert rise == pytest.approx(intervals._threshold(fitted, 0.95), rel=0.02)


def test_bootstrap_is_reproducible_and_near_the_profile(fitted):
    values = bootstrap(fitted, 200, seed=1)
    np.testing.assert_array_equal(values, bootstrap(fitted, 200, seed=1))
    first, second = percentile_ranges(fitted, values)["beta"], profile(fitted)["beta"]
    assert 0.4 < (first.high - first.low) / (second.high - second.low) < 2.5


def test_whole_groups_are_resampled():
    """Copies of every run tell nothing new: with groups the interval does not shrink."""
    runs = observed(Chinchilla(), noise=0.01, repeats=False)
    copies = np.tile(np.arange(len(runs)), 4)
    grouped = Runs(runs.N[copies], runs.D[copies], runs.U[copies], runs.loss[copies], copies)
    alone = Runs(grouped.N, grouped.D, grouped.U, grouped.loss)
    spread = [bootstrap(fit(Chinchilla(), r), 200)[:, 3].std() for r in (runs, grouped, alone)]
    assert spread[1] == pytest.approx(spread[0], rel=0.25)
    assert spread[2] < 0.7 * spread[0]


@pytest.mark.slow
def test_what_is_not_identified_is_said():
    runs = observed(Muennighoff())
    few = runs[(runs.epochs <= 4) & (runs.N < 1e9)]
    found = fit(Muennighoff(), few, held={"R_N": 1e6})
    noisy = Runs.of(few.N, few.D, few.loss * np.exp(0.05 * np.sin(np.arange(len(few)) * 7)), few.U)
    found = fit(Muennighoff(), noisy, held={"R_N": 1e6})
    ranges = profile(found)
    said = " ".join(intervals.warnings(found, ranges))
    assert ranges["R_D"].high is None
    assert "R_D* is unbounded above" in said or "R_D* is not identified" in said


def test_a_floor_far_below_the_runs_is_not_identified():
    """Losses from 20 to 60 say nothing of a floor of 1.8."""
    N, D = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e3, 1e4, 4), np.geomspace(1e4, 1e5, 4))
    )
    law = Chinchilla()
    runs = Runs.of(N, D, np.ones(16))
    noise = np.exp(0.02 * np.random.default_rng(0).normal(size=16))
    runs = Runs.of(N, D, law.predict(runs, TRUE["chinchilla"]) * noise)
    found = fit(law, runs)
    ranges = profile(found)
    assert ranges["E"].low is None
    assert any(
        sentence.startswith("E is not identified by these 16 runs")
        for sentence in intervals.warnings(found, ranges)
    )


def test_repetition_and_collinearity_are_said(fitted):
    said = " ".join(intervals.warnings(fitted, profile(fitted), bootstrap(fitted, 100)))
    assert "log A and alpha move together" in said
    repeated = fit(Chinchilla(), observed(Chinchilla(), noise=0.01))
    said = " ".join(intervals.warnings(repeated, profile(repeated)))
    assert "counts repeated tokens as new, and these runs go up to 30 epochs" in said
