"""The example of docs/plan.md runs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from heldout.scaling.chinchilla import chinchilla_loss

TRUE = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}


def test_laws(tmp_path):
    file = Path(__file__).parents[2] / "docs" / "docs_src" / "laws.py"
    spec = importlib.util.spec_from_file_location("laws_example", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = [
        f"{N},{D},{chinchilla_loss(N, D, **TRUE)}"
        for N in np.geomspace(2e7, 3e9, 5)
        for D in np.geomspace(1e9, 1e11, 4)
    ]
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(["N,D,loss", *lines]), encoding="utf-8")
    N, D = module.best_size(table, 1e21)
    assert pytest.approx(1e21) == 6 * N * D
    G = (0.34 * 400 / (0.37 * 2000)) ** (1 / 0.71)
    assert pytest.approx(G * (1e21 / 6) ** (0.37 / 0.71), rel=1e-2) == N
