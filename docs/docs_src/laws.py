"""Scaling laws as functions."""

from pathlib import Path

import heldout
from heldout.functions import chinchilla_loss, compute_optimum


def best_size(table: Path, flops: float) -> tuple[float, float]:
    """Parameters and tokens of the lowest loss at a training compute."""
    result = heldout.laws(heldout.OwnRuns(table, counted="total"), law="chinchilla")
    for sentence in result.warnings:
        print(sentence)
    found = result.fit.parameters
    N, D = compute_optimum(flops, **found)
    print(f"{N:.3g} parameters, {D:.3g} tokens: loss {chinchilla_loss(N, D, **found):.3f}")
    return N, D
