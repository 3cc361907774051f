"""How far a question lies outside the runs that a law was fitted to: which axis, what factor."""

from collections.abc import Mapping
from dataclasses import dataclass

from heldout.scaling.runs import Runs

AXES = {
    "N": "parameters",
    "D": "tokens seen",
    "U": "unique tokens",
    "epochs": "epochs",
    "flops": "training FLOPs",
    "N/U": "parameters per unique token",
}


@dataclass(frozen=True)
class Outside:
    """One axis on which a point lies beyond the runs, by ``factor`` > 1."""

    axis: str
    value: float
    low: float
    high: float
    factor: float

    @property
    def words(self) -> str:
        side = "above" if self.value > self.high else "below"
        return (
            f"{AXES[self.axis]}: {self.value:.3g} is {self.factor:.3g} times {side} the runs "
            f"({self.low:.3g} to {self.high:.3g})"
        )


def place(N: float, D: float, U: float) -> dict[str, float]:
    """Where a training lies on every axis; under one epoch, only what is seen counts as unique."""
    used = min(U, D)
    return {"N": N, "D": D, "U": used, "epochs": D / used, "flops": 6 * N * D, "N/U": N / used}


def ranges(runs: Runs) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of the runs on every axis."""
    arrays = {
        "N": runs.N,
        "D": runs.D,
        "U": runs.U,
        "epochs": runs.epochs,
        "flops": runs.flops,
        "N/U": runs.N / runs.U,
    }
    return {axis: (float(array.min()), float(array.max())) for axis, array in arrays.items()}


def outside(
    at: Mapping[str, float], within: Mapping[str, tuple[float, float]], slack: float = 1.001
) -> list[Outside]:
    """The axes on which ``at`` lies beyond the ranges, the farthest first."""
    found = []
    for axis, value in at.items():
        if axis not in within:
            continue
        low, high = within[axis]
        factor = max(value / high, low / value)
        if factor > slack:
            found.append(Outside(axis, value, low, high, factor))
    return sorted(found, key=lambda each: -each.factor)
