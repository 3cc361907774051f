"""How well runs identify each parameter: profile and bootstrap intervals, and words for both."""

# n runs, P parameters of the law, R resamples

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.distributions import student_t_quantile
from heldout.scaling.fit import Fit
from heldout.scaling.huber import coordinates, from_coordinates, minimize
from heldout.scaling.law import Law

LEVEL = 0.95
NUM_RESAMPLES = 1000
PRECISION = 0.004  # of a profile interval's end, as a share of its distance to the estimate
MOST_EPOCHS_AS_NEW = 4  # beyond, repeated tokens are worth visibly less than new ones


@dataclass(frozen=True)
class Range:
    """An interval of a parameter; ``None`` where the runs set no bound."""

    low: float | None
    high: float | None
    level: float = LEVEL
    method: str = "profile"

    def holds(self, value: float) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


def error_scale(fit: Fit) -> float:
    """Standard deviation of the log residuals, from the median of the n - P largest ones.

    An exact fit of P points makes P residuals too small, so these are left out.
    """
    sizes = np.sort(np.abs(fit.residuals))[fit.num_free :]
    return float(np.median(sizes) / 0.6745)


def _threshold(fit: Fit, level: float) -> float:
    """By how much the objective may rise: a likelihood ratio, rescaled for the Huber loss."""
    sigma = max(error_scale(fit), 1e-12)
    grid = np.linspace(-8, 8, 4001)
    density = np.exp(-(grid**2) / 2)
    density /= density.sum()
    inside = float(density[np.abs(sigma * grid) <= fit.delta].sum())
    if inside < 0.05:  # the grid is too coarse for so small a delta
        inside = fit.delta * 2 / (sigma * np.sqrt(2 * np.pi))
    squared = float((density * np.clip(sigma * grid, -fit.delta, fit.delta) ** 2).sum())
    reach = student_t_quantile((1 + level) / 2, len(fit.runs) - fit.num_free)
    return 0.5 * reach**2 * squared / inside


def profile(fit: Fit, level: float = LEVEL) -> dict[str, Range]:
    """For each free parameter, the values at which the best of all others still fits as well.

    All ends are searched at once: steps outward double until the objective has risen by the
    threshold, then halve. An end that reaches the domain's edge is no bound.
    """
    law, z_best = fit.law, coordinates(fit.law, fit.values)
    free = [index for index, name in enumerate(law.names) if name not in fit.held]
    side = np.repeat([-1.0, 1.0], len(free))
    which = np.tile(free, 2)
    row = np.arange(len(which))
    domain = np.array([[each.low, each.high] for each in law.PARAMETERS])
    ends = np.where(
        side < 0, coordinates(law, domain[:, 0])[which], coordinates(law, domain[:, 1])[which]
    )
    held = np.zeros((len(which), len(z_best)), bool)
    held[:, [law.names.index(name) for name in fit.held]] = True
    held[row, which] = True
    limit = fit.objective + _threshold(fit, level)

    inner = z_best[which].copy()  # still fits
    outer = np.full(len(which), np.nan)  # no longer fits
    at_inner = np.tile(z_best, (len(which), 1))
    step = np.maximum(1e-3, 0.02 * np.abs(np.where(_relative(law)[which], 1.0, z_best[which])))
    unbounded = np.zeros(len(which), bool)
    for _ in range(34):
        growing = np.isnan(outer) & ~unbounded
        at = np.where(growing, inner + side * step, (inner + np.nan_to_num(outer, nan=0.0)) / 2)
        at = np.where(side < 0, np.maximum(at, ends), np.minimum(at, ends))
        busy = ~unbounded & ~(np.abs(outer - inner) <= PRECISION * np.abs(inner - z_best[which]))
        if not busy.any():
            break
        starts = at_inner[busy].copy()
        starts[np.arange(busy.sum()), which[busy]] = at[busy]
        found = minimize(
            law,
            fit.runs,
            from_coordinates(law, starts),
            delta=fit.delta,
            held=held[busy],
            max_steps=60,
            tolerance=1e-8,
        )
        fits = np.zeros(len(which), bool)
        fits[busy] = found.objective <= limit
        moved = coordinates(law, found.values)
        at_inner[fits] = moved[fits[busy]]
        unbounded |= fits & (at == ends)
        inner = np.where(fits, at, inner)
        outer = np.where(busy & ~fits, at, outer)
        step = np.where(growing & fits, step * 2, step)
    reached = np.tile(z_best, (len(which), 1))
    reached[row, which] = np.where(np.isnan(outer), inner, (inner + outer) / 2)
    numbers = from_coordinates(law, reached)[row, which]
    bounds = [None if open_ else float(x) for open_, x in zip(unbounded, numbers, strict=True)]
    num = len(free)
    return {
        law.names[index]: Range(bounds[place], bounds[place + num], level)
        for place, index in enumerate(free)
    }


def _relative(law: Law) -> np.ndarray:
    return np.array([parameter.relative for parameter in law.PARAMETERS])


def bootstrap(fit: Fit, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Parameters refitted to resampled runs, (R, P); whole groups are drawn where there are any.

    Each refit starts at the fit to all runs. Cost is about 10 ms a resample of 240 runs.
    """
    groups = np.arange(len(fit.runs)) if fit.runs.groups is None else fit.runs.groups
    _, index = np.unique(groups, return_inverse=True)
    num_groups = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
    held = np.tile([name in fit.held for name in fit.law.names], (num_resamples, 1))
    found = minimize(
        fit.law,
        fit.runs,
        np.tile(fit.values, (num_resamples, 1)),
        delta=fit.delta,
        weights=counts[:, index].astype(np.float64),
        held=held,
        max_steps=60,
        tolerance=1e-8,
    )
    return found.values


def percentile_ranges(fit: Fit, values: np.ndarray, level: float = LEVEL) -> dict[str, Range]:
    """Percentile intervals of bootstrap parameters; ends at the domain's edge are no bounds."""
    tail = (1 - level) / 2
    ranges = {}
    for index, parameter in enumerate(fit.law.PARAMETERS):
        if parameter.name in fit.held:
            continue
        low, high = np.quantile(values[:, index], [tail, 1 - tail])
        ranges[parameter.name] = Range(
            None if low <= max(parameter.low * 1.001, 1e-9) else float(low),
            None if high >= parameter.high * 0.999 else float(high),
            level,
            "bootstrap",
        )
    return ranges


def warnings(fit: Fit, ranges: dict[str, Range], resampled: np.ndarray | None = None) -> list[str]:
    """What these runs cannot tell, one sentence each."""
    runs, law = fit.runs, fit.law
    said = []
    for parameter in law.PARAMETERS:
        name, bounds = parameter.name, ranges.get(parameter.name)
        if bounds is None:
            continue
        label = f"{name}*" if name.startswith("R_") else name
        low = "0" if bounds.low is None else f"{bounds.low:.3g}"
        if bounds.high is None and bounds.low is None:
            said.append(f"{label} is not identified by these {len(runs)} runs: any value fits.")
        elif bounds.high is None:
            said.append(f"{label} is unbounded above: any value over {low} fits these runs.")
        elif bounds.low is None:
            said.append(
                f"{label} is not identified by these {len(runs)} runs: any value from 0 to "
                f"{bounds.high:.3g} fits."
            )
        elif parameter.unit == "loss" and bounds.high > 3 * bounds.low:
            said.append(
                f"{label} is hardly identified by these {len(runs)} runs: {low} to "
                f"{bounds.high:.3g}."
            )
    said += collinear(fit, resampled) if resampled is not None else []
    if not law.KNOWS_REPETITION and (runs.epochs > MOST_EPOCHS_AS_NEW).any():
        said.append(
            f"The law {law.name} counts repeated tokens as new, and these runs go up to "
            f"{runs.epochs.max():.3g} epochs: use a law that knows repetition."
        )
    elif not law.SHOWS_OVERFITTING and (runs.epochs > MOST_EPOCHS_AS_NEW).any():
        said.append(
            f"The law {law.name} cannot show overfitting, and these runs go up to "
            f"{runs.epochs.max():.3g} epochs."
        )
    if law.KNOWS_REPETITION and not runs.is_repeated:
        said.append(f"No run repeats its data: what the law {law.name} says of epochs is a guess.")
    sure = fit.certificate
    if not sure.is_certain:
        said.append(
            f"The optimum is not certain: {sure.num_same} of {sure.num_starts} starts reach it, "
            f"with a gradient of {sure.gradient_norm:.1g}."
        )
    return said


def collinear(fit: Fit, resampled: np.ndarray, least: float = 0.99) -> Sequence[str]:
    """Pairs of parameters that the runs cannot tell apart."""
    z = coordinates(fit.law, np.maximum(resampled, 1e-300))
    names, said = fit.law.names, []
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.nan_to_num(np.corrcoef(z, rowvar=False))
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            if names[i] in fit.held or names[j] in fit.held or abs(matrix[i, j]) < least:
                continue
            first, second = (
                f"log {names[k]}" if fit.law.PARAMETERS[k].relative else names[k] for k in (i, j)
            )
            said.append(
                f"{first} and {second} move together (correlation {matrix[i, j]:.3f}): read them "
                "as a pair, not one by one."
            )
    return said
