"""A smooth surface of log loss over log N, log D and log epochs: what runs of one kind lie on."""

# n runs, K columns of the regression

from dataclasses import dataclass

import numpy as np

from heldout.scaling.runs import Runs

LEAST_TO_REGRESS = 12


@dataclass(frozen=True)
class Surface:
    """Log loss above it, (n,), and the coefficients of the columns that were given."""

    residuals: np.ndarray
    shifts: np.ndarray


def residuals_of_surface(runs: Runs, shifts_nK: np.ndarray | None = None) -> Surface | None:
    """Of the quadratic that is least absolute deviations away; None where runs are too few.

    ``shifts_nK`` are further columns, such as one for each kind of run but the first.
    """
    axes = [np.log(runs.N), np.log(runs.D), np.log(runs.epochs)] if len(runs) else []
    scaled = [(axis - axis.mean()) / axis.std() for axis in axes if axis.std() > 1e-9]
    columns = [np.ones(len(runs)), *scaled]
    columns += [a * b for place, a in enumerate(scaled) for b in scaled[place:]]
    given = 0 if shifts_nK is None else shifts_nK.shape[1]
    if len(runs) < max(LEAST_TO_REGRESS, 2 * len(columns) + given):
        return None
    if shifts_nK is not None:
        columns += list(shifts_nK.T)
    X_nK, logs = np.stack(columns, axis=1), np.log(runs.loss)
    weights = np.ones(len(runs))
    for _ in range(60):  # least absolute deviations, by weights
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(root[:, None] * X_nK, root * logs, rcond=None)[0]
        residuals = logs - X_nK @ coefficients
        weights = 1 / np.maximum(np.abs(residuals), 1e-4)
    return Surface(residuals, coefficients[len(coefficients) - given :])
