"""Published fits of runs of others, which are read from HELDOUT_REAL_DATA."""

import json

import numpy as np
import pytest

from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.fit import fit
from heldout.scaling.huber import objective
from heldout.scaling.intervals import profile
from heldout.scaling.muennighoff import PUBLISHED, Muennighoff
from heldout.scaling.table import read_runs

GEMSTONES = "parameters_delta-3/approach_3_parameters_grid_search_0_{}.json"


@pytest.mark.parametrize("name", ["hot", "cool_end"])
def test_gemstones(scaling_data, name):
    published = json.loads((scaling_data / "gemstones_published_fits.json").read_text())
    entry = published[GEMSTONES.format(name)]
    runs = read_runs(scaling_data / f"gemstones_{name}.csv").runs
    found = fit(Chinchilla(), runs)
    assert found.objective == pytest.approx(entry["loss"]["0"], abs=1e-8)
    assert found.certificate.num_same == found.certificate.num_starts
    exponents = [found.parameters["alpha"], found.parameters["beta"]]
    np.testing.assert_allclose(exponents, entry["exponents"]["0"], rtol=1e-3)


def test_the_published_optimum_of_repetition_is_a_local_one(scaling_data):
    runs = read_runs(scaling_data / "datablations_c4_runs.csv", where=["in_published_fit=1"]).runs
    law = Muennighoff()
    assert len(runs) == 182
    published = float(objective(law, runs, law.values(PUBLISHED)))
    assert published == pytest.approx(0.0158259, abs=5e-8)
    base = {name: value for name, value in PUBLISHED.items() if not name.startswith("R_")}
    better = fit(law, runs, held=base)
    assert better.objective == pytest.approx(0.0158047, abs=5e-8)
    assert better.parameters["R_D"] == pytest.approx(95.4, abs=0.1)
    assert better.parameters["R_N"] == pytest.approx(1.71, abs=0.01)
    assert profile(better)["R_D"].high is None
    assert fit(law, runs).objective < 0.0066
