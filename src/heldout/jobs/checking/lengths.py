"""How long rows are: quantiles, and a histogram."""

import numpy as np

from heldout.core.results.check import Lengths


def lengths_of(part: str, unit: str, values: np.ndarray) -> Lengths:
    """Quantiles and a histogram whose bars grow with the length."""
    marks = (0, 0.05, 0.5, 0.95, 1)
    top = max(2.0, float(values.max()))
    edges = np.unique(np.round(np.geomspace(1, top, 25)))
    edges[0] = 0
    counts, _ = np.histogram(values, bins=edges)
    return Lengths(
        part,
        unit,
        len(values),
        int(values.sum()),
        {f"{mark:g}": float(np.quantile(values, mark)) for mark in marks},
        [
            (float(low), float(high), int(num))
            for low, high, num in zip(edges, edges[1:], counts, strict=False)
        ],
    )
