"""The law of docs/write_a_law.md is fitted like any other."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from heldout.scaling.fit import fit
from heldout.scaling.runs import Runs

TRUE = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}


@pytest.fixture(scope="module")
def law():
    file = Path(__file__).parents[2] / "docs" / "docs_src" / "unique_only.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.UniqueOnly()


@pytest.fixture(scope="module")
def runs(law):
    N, U = (each.ravel() for each in np.meshgrid(np.geomspace(2e7, 3e9, 5), [1e8, 1e9, 1e10]))
    placed = Runs.of(N, 4 * U, np.ones(N.size), U)
    return Runs.of(N, 4 * U, law.predict(placed, TRUE), U)


def test_a_fit_finds_the_true_parameters(law, runs):
    found = fit(law, runs)
    assert found.parameters == pytest.approx(TRUE, rel=1e-3)
    assert found.certificate.is_certain


def test_its_gradient_is_that_of_the_loss(law, runs):
    values = law.values(TRUE)
    gradient = law.gradient(runs, values)
    for place, value in enumerate(values):
        step = np.zeros(len(values))
        step[place] = 1e-6 * value
        slope = (law.loss(runs, values + step) - law.loss(runs, values - step)) / (2 * step[place])
        np.testing.assert_allclose(gradient[:, place], slope, rtol=1e-4)


def test_its_name_is_that_of_its_file(law):
    assert law.name == "unique_only"
