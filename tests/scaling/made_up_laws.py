"""Runs that follow a law with known parameters."""

import numpy as np

from heldout.scaling.runs import Runs

TRUE = {
    "chinchilla": {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37},
    "over_training": {"E": 1.8, "a": 300.0, "b": 900.0, "eta": 0.15},
    "muennighoff": {
        "E": 1.8,
        "A": 400.0,
        "B": 2000.0,
        "alpha": 0.34,
        "beta": 0.37,
        "R_D": 12.0,
        "R_N": 5.0,
    },
    "lovelace": {
        "E": 1.8,
        "A": 400.0,
        "B": 2000.0,
        "P": 0.05,
        "alpha": 0.34,
        "beta": 0.37,
        "delta": 0.6,
        "kappa": 0.8,
    },
    "practical": {
        "E": 1.9,
        "a": 80.0,
        "b": 1e4,
        "c": 0.08,
        "alpha": 0.33,
        "beta": 0.5,
        "gamma": 1.0,
        "delta": 1.1,
    },
    "hybrid": {
        "E": 1.9,
        "a": 80.0,
        "b": 1e4,
        "P": 0.01,
        "alpha": 0.33,
        "beta": 0.5,
        "delta": 0.6,
        "kappa": 0.9,
    },
}


def grid(repeats: bool = True) -> Runs:
    """Six sizes by four token counts, at 1, 4 and 30 epochs."""
    N, D, epochs = np.meshgrid(
        np.geomspace(2e7, 3e9, 6),
        np.geomspace(2e9, 2e11, 4),
        [1.0, 4.0, 30.0] if repeats else [1.0],
        indexing="ij",
    )
    N, D, epochs = N.ravel(), D.ravel(), epochs.ravel()
    return Runs.of(N, D, np.ones(N.size), D / epochs)


def observed(law, noise: float = 0.0, seed: int = 0, repeats: bool = True) -> Runs:
    """Runs that follow a law, times log-normal noise."""
    runs = grid(repeats)
    loss = law.predict(runs, TRUE[law.name])
    loss = loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(runs)))
    return Runs.of(runs.N, runs.D, loss, runs.U)
