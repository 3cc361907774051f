"""The sum of Huber losses of log residuals, minimized for many problems at once.

Damped Newton steps with exact first and second derivatives: a step solves (H + damping M) step =
gradient, where H is the Hessian and M the Hessian of the quadratic that lies above the Huber loss
and touches it (iteratively reweighted least squares). Much damping gives a safe short step of that
kind; none gives Newton's, which ends at the exact optimum although the Huber loss has kinks in its
second derivative. Parameters stay in their domain: one that a step would push out of it is held.
"""

# S problems, n runs, P parameters of the law (in the coordinates of the search)

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import HUGE, Law
from heldout.scaling.runs import Runs

DELTA = 1e-3  # of log residuals, as Hoffmann et al. 2022
_CHUNK = 2_000_000  # entries of a gradient array that are worked on at once


@dataclass(frozen=True)
class Minimum:
    """The ends of S searches, in the law's own parameters, with objective and gradient norm."""

    values: np.ndarray  # (S, P)
    objective: np.ndarray  # (S,)
    gradient_norm: np.ndarray  # (S,), of the free coordinates
    num_steps: int


def huber(residual: np.ndarray, delta: float) -> np.ndarray:
    """Quadratic up to ``delta``, linear beyond."""
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def objective(
    law: Law,
    runs: Runs,
    values: np.ndarray,
    delta: float = DELTA,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Sum over runs of Huber(log predicted - log observed), (...)."""
    terms = huber(_log_loss(law.loss(runs, values)) - np.log(runs.loss), delta)
    return (terms if weights is None else weights * terms).sum(axis=-1)


def coordinates(law: Law, values: np.ndarray) -> np.ndarray:
    """The law's parameters as the search sees them: relative ones by their logarithm."""
    relative = np.array([parameter.relative for parameter in law.PARAMETERS])
    with np.errstate(divide="ignore"):
        return np.where(relative, np.log(np.where(relative, values, 1.0)), values)


def from_coordinates(law: Law, z: np.ndarray) -> np.ndarray:
    relative = np.array([parameter.relative for parameter in law.PARAMETERS])
    return np.where(relative, np.exp(np.where(relative, z, 0.0)), z)


def minimize(
    law: Law,
    runs: Runs,
    starts: np.ndarray,
    *,
    delta: float = DELTA,
    weights: np.ndarray | None = None,
    held: np.ndarray | None = None,
    max_steps: int = 200,
    tolerance: float = 0.0,
) -> Minimum:
    """Local minima from starts (S, P); ``weights`` (S, n) of the runs, ``held`` (S, P) is a mask.

    A search ends where its gradient is zero to rounding, or earlier, where a Newton step promises
    less than the share ``tolerance`` of the objective.
    Cost is P + 1 gradients of the law a step, all S problems together.
    """
    size = max(1, _CHUNK // (len(runs) * len(law.PARAMETERS)))
    parts = [
        _minimize(
            law,
            runs,
            starts[low : low + size],
            delta,
            None if weights is None else weights[low : low + size],
            None if held is None else held[low : low + size],
            max_steps,
            tolerance,
        )
        for low in range(0, len(starts), size)
    ]
    return Minimum(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.objective for part in parts]),
        np.concatenate([part.gradient_norm for part in parts]),
        max(part.num_steps for part in parts),
    )


def _minimize(
    law: Law,
    runs: Runs,
    starts: np.ndarray,
    delta: float,
    weights: np.ndarray | None,
    held: np.ndarray | None,
    max_steps: int,
    tolerance: float,
) -> Minimum:
    low = coordinates(law, np.array([parameter.low for parameter in law.PARAMETERS]))
    high = coordinates(law, np.array([parameter.high for parameter in law.PARAMETERS]))
    z = np.clip(coordinates(law, starts), low, high)
    weights = np.ones((len(z), len(runs))) if weights is None else weights
    held = np.zeros(z.shape, bool) if held is None else held
    target = np.log(runs.loss)

    def terms(z: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual = _log_loss(law.loss(runs, from_coordinates(law, z))) - target
        return residual, (weights * huber(residual, delta)).sum(-1)

    residual, value = terms(z, weights)
    damping = np.full(len(z), 0.1)
    norm = np.full(len(z), np.inf)
    stale = np.zeros(len(z), int)
    active = np.arange(len(z))
    steps = 0
    for steps in range(1, max_steps + 1):  # noqa: B007
        za, ra, wa = z[active], residual[active], weights[active]
        gradient, hessian, above = _derivatives(law, runs, za, ra, wa, delta)
        outward = ((za <= low) & (gradient > 0)) | ((za >= high) & (gradient < 0))
        free = ~(held[active] | outward)
        gradient = np.where(free, gradient, 0.0)
        norm[active] = np.abs(gradient).max(-1)
        both = free[:, :, None] & free[:, None, :]
        identity = np.eye(z.shape[1])
        damped = hessian + damping[active, None, None] * above
        matrix = np.where(both, damped, 0.0) + identity * ~free[:, :, None]
        step = _solve(matrix, gradient)
        new = np.clip(za - np.clip(step, -3.0, 3.0), low, high)
        new_residual, new_value = terms(new, wa)
        gain = value[active] - new_value
        promise = (step * gradient).sum(-1)
        better = (gain > 0) & (promise > 0)
        near = (promise >= 0) & (promise <= tolerance * value[active]) & (damping[active] < 1)
        took = active[better]
        small = gain <= 1e-13 * np.maximum(value[active], 1e-12)
        z[took], residual[took], value[took] = new[better], new_residual[better], new_value[better]
        damping[active] = np.where(better, damping[active] * 0.2, damping[active] * 6.0)
        damping[active] = np.clip(damping[active], 1e-9, 1e9)
        stale[active] = np.where(better & ~small, 0, stale[active] + 1)
        done = (norm[active] <= 1e-13 * (1 + delta)) | (stale[active] > 12)
        done |= damping[active] >= 1e9
        active = active[~(done | near)]
        if not len(active):
            break
    return Minimum(from_coordinates(law, z), value, norm, steps)


def _derivatives(
    law: Law, runs: Runs, z: np.ndarray, residual: np.ndarray, weights: np.ndarray, delta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient (S, P), Hessian (S, P, P), and the Hessian of the quadratic above (S, P, P)."""
    jacobian = _log_gradient(law, runs, z)
    slope = weights * np.clip(residual, -delta, delta)
    inside = weights * (np.abs(residual) <= delta)
    around = weights * (delta / np.maximum(np.abs(residual), delta))
    gradient = np.einsum("snp,sn->sp", jacobian, slope)
    transposed = jacobian.swapaxes(-1, -2)
    hessian = transposed @ (inside[..., None] * jacobian)
    above = transposed @ (around[..., None] * jacobian)
    # Curvature of the law itself, from differences of its exact gradient.
    shift = 1e-6
    curvature = np.empty_like(hessian)
    for p in range(z.shape[1]):
        moved = z.copy()
        moved[:, p] += shift
        there = np.einsum("snp,sn->sp", _log_gradient(law, runs, moved), slope)
        curvature[:, p] = (there - gradient) / shift
    hessian += 0.5 * (curvature + curvature.swapaxes(-1, -2))
    diagonal = np.maximum(np.einsum("spp->sp", above), 1e-300)
    above += (
        np.eye(z.shape[1]) * (1e-9 * diagonal + 1e-12 * diagonal.max(-1, keepdims=True))[:, None, :]
    )
    return gradient, hessian, above


def _log_gradient(law: Law, runs: Runs, z: np.ndarray) -> np.ndarray:
    """Derivative of the log loss to the coordinates, (S, n, P)."""
    values = from_coordinates(law, z)
    loss, gradient = law.loss_and_gradient(runs, values)
    relative = np.array([parameter.relative for parameter in law.PARAMETERS])
    scale = np.where(relative, values, 1.0)
    return gradient * scale[:, None, :] / np.maximum(loss, 1e-30)[..., None]


def _log_loss(loss: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.log(np.clip(np.nan_to_num(loss, nan=np.exp(HUGE)), 1e-30, np.exp(HUGE)))


def _solve(matrix: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Solutions of S small systems; of least squares where one is singular."""
    try:
        step = np.linalg.solve(matrix, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:
        step = (np.linalg.pinv(matrix) @ gradient[..., None])[..., 0]
    return np.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)
