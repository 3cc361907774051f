"""Diverged runs among those of many epochs: told by the law that knows what repetition does."""

import numpy as np
import pytest

from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.diverged import diverged_notes, repeated_notes
from heldout.scaling.fit import fit
from heldout.scaling.lovelace import Lovelace
from heldout.scaling.runs import Runs


def repeated_runs(seed: int) -> Runs:
    """36 runs of three sizes on three sets of unique tokens, for 1, 4, 12 and 40 epochs."""
    N, U, epochs = (
        axis.ravel() for axis in np.meshgrid([1e7, 5e7, 2e8], [1e8, 4e8, 1e9], [1, 4, 12, 40])
    )
    D = U * epochs
    penalty = 0.02 * (epochs - 1) ** 0.8 * (N / U) ** 0.3
    loss = 1.8 + 400 / N**0.34 + 2000 / D**0.37 + penalty
    noise = 0.01 * np.random.default_rng(seed).normal(size=len(N))
    return Runs.of(N, D, loss * np.exp(noise), U)


def notes(runs: Runs, law: type = Lovelace) -> list[str]:
    lines = range(2, len(runs) + 2)
    return diverged_notes(lines, runs) + repeated_notes(lines, fit(law(), runs, num_starts=4))


@pytest.mark.parametrize("seed", range(3))
def test_what_repetition_costs_is_no_fault(seed):
    assert notes(repeated_runs(seed)) == []


@pytest.mark.parametrize("epochs", [12, 40])
@pytest.mark.parametrize("times", [1.25, 2.0])
def test_a_diverged_run_of_many_epochs_is_told(epochs, times):
    runs = repeated_runs(0)
    place = int(np.flatnonzero(np.isclose(runs.epochs, epochs))[4])
    loss = runs.loss.copy()
    loss[place] *= times
    spoiled = Runs.of(runs.N, runs.D, loss, runs.U)
    (said,) = notes(spoiled)
    assert said.startswith("1 run looks diverged")
    assert f"line {place + 2} (" in said
    assert notes(spoiled, Chinchilla) == []  # which does not know what repetition does
