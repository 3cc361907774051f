"""A law fitted to runs by variable projection, with a certificate.

Given its exponents a law is linear in its coefficients, so the exponents are scanned and the
coefficients solved for at each point; the best points, kept apart from one another, are starts that
are polished to the optimum. How many of them arrive at the same place is the certificate.
"""

# S points of the scan, n runs, P parameters of the law, K of them linear coefficients

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heldout.core.errors import UserError
from heldout.scaling.huber import DELTA, Minimum, minimize, objective
from heldout.scaling.law import Law
from heldout.scaling.runs import Runs

NUM_STARTS = 12
SAME = 1e-6  # relative difference of two objectives that count as one optimum


@dataclass(frozen=True)
class Certificate:
    """How sure it is that the optimum is the best one."""

    num_scanned: int
    num_starts: int
    num_same: int
    gradient_norm: float
    next_objective: float | None

    @property
    def is_certain(self) -> bool:
        """At least three starts and a third of all agree, on a point where the gradient is zero."""
        return self.num_same >= max(3, self.num_starts / 3) and self.gradient_norm < 1e-6


@dataclass(frozen=True)
class Fit:
    """A law with the parameters of the lowest objective found, and how it was found."""

    law: Law
    runs: Runs
    values: np.ndarray
    objective: float
    delta: float
    certificate: Certificate
    held: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, float]:
        return dict(zip(self.law.names, map(float, self.values), strict=True))

    @property
    def num_free(self) -> int:
        return len(self.values) - len(self.held)

    def predict(self, runs: Runs) -> np.ndarray:
        return self.law.loss(runs, self.values)

    @property
    def residuals(self) -> np.ndarray:
        """Log of observed over predicted loss, (n,)."""
        return np.log(self.runs.loss / self.predict(self.runs))

    @property
    def rms(self) -> float:
        """Root mean square of the log residuals."""
        return float(np.sqrt((self.residuals**2).mean()))


def fit(
    law: Law,
    runs: Runs,
    *,
    delta: float = DELTA,
    held: Mapping[str, float] | None = None,
    num_starts: int = NUM_STARTS,
) -> Fit:
    """The best parameters of a law, by variable projection and polished starts.

    Minimizes the sum over runs of Huber(log predicted - log observed, ``delta``). ``held`` gives
    parameters that are not fitted. Cost is some tens of milliseconds for hundreds of runs.
    """
    held = dict(held or {})
    unknown = [name for name in held if name not in law.names]
    if unknown:
        raise UserError(f"The law {law.name} has no parameter {unknown[0]!r}.")
    check_enough(law, runs, len(held))
    starts, num_scanned = scan(law, runs, delta=delta, held=held, num_starts=num_starts)
    mask = np.tile([name in held for name in law.names], (len(starts), 1))
    found = minimize(law, runs, starts, delta=delta, held=mask)
    best = int(np.argmin(found.objective))
    return Fit(
        law,
        runs,
        found.values[best],
        float(found.objective[best]),
        delta,
        certificate(found, num_scanned),
        tuple(held),
    )


def check_enough(law: Law, runs: Runs, num_held: int = 0) -> None:
    """Refuse what cannot be fitted at all."""
    free = len(law.PARAMETERS) - num_held
    if len(runs) <= free:
        raise UserError(
            f"The law {law.name} has {free} parameters and there are {len(runs)} runs: at least "
            f"{free + 1} are needed, better {3 * free}."
        )
    for name, array, words in (("N", runs.N, "model size"), ("D", runs.D, "number of tokens")):
        if name in law.DEPENDS_ON and np.unique(array).size < 2:
            raise UserError(
                f"All {len(runs)} runs have one {words} ({name} = {array[0]:.4g}): the law "
                f"{law.name} needs at least 2."
            )


def certificate(found: Minimum, num_scanned: int) -> Certificate:
    best = int(np.argmin(found.objective))
    lowest = found.objective[best]
    same = found.objective <= lowest * (1 + SAME) + 1e-15
    others = found.objective[~same]
    return Certificate(
        num_scanned,
        len(found.objective),
        int(same.sum()),
        float(found.gradient_norm[best]),
        float(others.min()) if len(others) else None,
    )


def scan(
    law: Law,
    runs: Runs,
    *,
    delta: float = DELTA,
    held: Mapping[str, float] | None = None,
    num_starts: int = NUM_STARTS,
) -> tuple[np.ndarray, int]:
    """Starts (num_starts, P), the best first, and how many points were looked at."""
    values = _scan_points(law, runs, held or {})
    values = _project(law, runs, values, held or {})
    score = objective(law, runs, values, max(delta, 0.01))
    nonlinear = [i for i, each in enumerate(law.PARAMETERS) if each.scan]
    place = _unit_cube(law, runs, values)[:, nonlinear]
    order = np.argsort(score)
    chosen: list[int] = []
    # Apart from one another, so that their agreement says something.
    for apart in (0.15, 0.05, 0.0):
        for index in order:
            if len(chosen) == num_starts:
                break
            if index in chosen:
                continue
            far = (np.abs(place[chosen] - place[index]).max(-1) >= apart).all() if chosen else True
            if far:
                chosen.append(int(index))
    return values[chosen], len(values)


def _scan_box(law: Law, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array([parameter.scan or (1.0, 1.0) for parameter in law.PARAMETERS])
    of_loss = np.array([parameter.unit == "loss" for parameter in law.PARAMETERS])
    ends[of_loss] *= runs.loss.min()
    return ends[:, 0], ends[:, 1]


def _scan_points(law: Law, runs: Runs, held: Mapping[str, float]) -> np.ndarray:
    low, high = _scan_box(law, runs)
    free = [
        i
        for i, each in enumerate(law.PARAMETERS)
        if each.scan and law.PARAMETERS[i].name not in held
    ]
    if not free:
        unit = np.zeros((1, 0))
    elif len(free) == 1:
        unit = np.linspace(0, 1, 64)[:, None]
    elif len(free) == 2:
        line = np.linspace(0, 1, 16)
        unit = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    else:
        unit = _spread(2048, len(free))
    values = np.tile(np.sqrt(low * high), (len(unit), 1))
    for column, index in enumerate(free):
        if law.PARAMETERS[index].unit in ("none", "loss"):
            values[:, index] = low[index] + unit[:, column] * (high[index] - low[index])
        else:
            values[:, index] = low[index] * (high[index] / low[index]) ** unit[:, column]
    for index, parameter in enumerate(law.PARAMETERS):
        if not parameter.scan:
            # So many usable parameters that none are in surplus, in the first pass.
            values[:, index] = 1.0
        if parameter.name in held:
            values[:, index] = held[parameter.name]
    return values


def _unit_cube(law: Law, runs: Runs, values: np.ndarray) -> np.ndarray:
    """Parameters (S, P) as places in the box of the scan, 0 to 1 each."""
    low, high = _scan_box(law, runs)
    span = np.where(high > low, high - low, 1.0)
    ratio = np.log(np.where(high > low, high / low, np.e))
    logarithmic = np.array([each.unit not in ("none", "loss") for each in law.PARAMETERS])
    return np.where(logarithmic, np.log(values / low) / ratio, (values - low) / span)


def _spread(num: int, dimensions: int) -> np.ndarray:
    """Points that fill a unit cube evenly (Roberts' additive recurrence)."""
    root = 2.0
    for _ in range(40):
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = (1 / root) ** np.arange(1, dimensions + 1)
    return (0.5 + np.arange(1, num + 1)[:, None] * steps) % 1.0


def _project(law: Law, runs: Runs, values: np.ndarray, held: Mapping[str, float]) -> np.ndarray:
    """Coefficients by non-negative least squares at every point of the scan."""
    linear = [index for index in law.linear if law.PARAMETERS[index].name not in held]
    if not linear:
        return values
    values = values.copy()
    for _ in range(law.NUM_PASSES):
        basis, target, weight = law.linear_form(runs, values)
        places = [law.linear.index(index) for index in linear]
        rest = [place for place in range(basis.shape[-1]) if place not in places]
        if rest:
            known = values[:, [law.linear[place] for place in rest]]
            target = target - np.einsum("snk,sk->sn", basis[..., rest], known)
        found = _nonnegative(basis[..., places] * weight[..., None], target * weight)
        values[:, linear] = np.maximum(found, _least(found))
    return values


def _least(found: np.ndarray) -> np.ndarray:
    """What stands for a coefficient of zero: the search needs its logarithm."""
    typical = np.median(np.where(found > 0, found, np.nan), axis=0) if len(found) else found
    return np.nan_to_num(1e-3 * typical, nan=1e-3)


def _nonnegative(basis: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Non-negative least squares of S small problems (S, n, K) at once, over all active sets."""
    scale = np.sqrt((basis**2).sum(1)) + 1e-300
    basis = basis / scale[:, None, :]
    products = basis.swapaxes(-1, -2) @ basis
    right = np.einsum("snk,sn->sk", basis, target)
    num = basis.shape[-1]
    best = np.zeros(right.shape)
    lowest = np.zeros(len(right))  # of the squared error, less that of all zeros
    for chosen in itertools.product((False, True), repeat=num):
        which = np.flatnonzero(chosen)
        if not len(which):
            continue
        matrix = products[:, which[:, None], which] + 1e-12 * np.eye(len(which))
        solution = np.linalg.solve(matrix, right[:, which, None])[..., 0]
        error = -(solution * right[:, which]).sum(-1)
        good = (solution >= 0).all(-1) & (error < lowest)
        lowest[good] = error[good]
        full = np.zeros((int(good.sum()), num))
        full[:, which] = solution[good]
        best[good] = full
    return best / scale
