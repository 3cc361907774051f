"""What cannot be right, or looks wrong, in a table of runs: units, settings and losses mixed."""

# n runs, K columns of a regression

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from heldout.core.errors import UserError
from heldout.scaling.runs import Runs

LEAST_COUNT = 1e4  # parameters, or tokens: no language model has fewer
MOST_NATS = 12.5  # per token, a uniform guess over 270,000 tokens
HIGH_NATS = 4.0  # per token: models of 1e7 parameters stay below after 1e9 tokens of text
MOST_BITS_PER_BYTE = 8.0
LEAST_TO_REGRESS = 12
MOST_EPOCHS = 4.0
OUTLIER = 0.1  # of log loss above what runs of that size and length have, and 6 deviations
SHIFT = 0.02  # of log loss, between two values of a column on the same runs
_SEEDS = ("seed", "rep", "trial", "replica", "restart")


def refuse_units(path: str, names: Mapping[str, str], runs: Runs, unit: str) -> None:
    """UserError where numbers cannot be counts, or losses no losses of that unit."""
    for role, values, words in (("N", runs.N, "parameters"), ("D", runs.D, "tokens")):
        if role in names and values.max() < LEAST_COUNT:
            name = names[role]
            raise UserError(
                f"{path}: column {name!r} goes from {values.min():.4g} to {values.max():.4g}, and "
                f"that cannot be {words}. If it is in billions, say --column {role}={name}*1e9, in "
                f"millions {role}={name}*1e6."
            )
    most = MOST_BITS_PER_BYTE if unit == "bits-per-byte" else MOST_NATS
    name = names["loss"]
    plain = name.lower()
    if "ppl" in plain or "perplex" in plain or np.median(runs.loss) > most:
        raise UserError(
            f"{path}: column {name!r} goes from {runs.loss.min():.4g} to {runs.loss.max():.4g}, "
            f"which cannot be {unit.replace('-', ' ')}. If it is a perplexity, say --loss-unit "
            "perplexity."
        )


def unit_notes(names: Mapping[str, str], runs: Runs, unit: str) -> list[str]:
    """Losses that are high for their unit."""
    best = int(np.argmin(runs.loss))
    is_trained = runs.N[best] >= 1e7 and runs.D[best] >= 1e9
    if unit == "bits-per-byte" or not is_trained or runs.loss[best] < HIGH_NATS:
        return []
    return [
        f"The lowest of all losses, column {names['loss']!r}, is {runs.loss[best]:.3g}: high for "
        "nats per token. If it is a perplexity, say --loss-unit perplexity."
    ]


def mixed_notes(
    path: str, rows: Sequence[Mapping[str, str]], used: Sequence[str], runs: Runs
) -> list[str]:
    """What tells runs of one size and length apart, other than seeds: settings, or several losses.

    ``used`` names the columns that were read. UserError where a column of words shifts the loss of
    the same runs one way: then two losses, or two ways of training, stand in one column.
    """
    places = _same_settings(runs)
    if not places:
        return []
    varied = [
        name
        for name in rows[0]
        if name not in used
        and any(len({rows[p][name].strip() for p in group}) > 1 for group in places)
    ]
    for name in varied:
        if not _is_number(rows, name):
            _refuse_shift(path, name, rows, places, runs)
    spread = max(float(np.ptp(np.log(runs.loss[group]))) for group in places)
    others = [name for name in varied if not any(word in name.lower() for word in _SEEDS)]
    if (varied and not others) or spread < 0.005:
        return []
    by = f" (they differ in {', '.join(others[:4])})" if others else ""
    most = max(map(len, places))
    return [
        f"{len(places)} pairs of N and D have several runs, up to {most}{by}, with losses up to "
        f"{np.expm1(spread):.1%} apart, and each counts as a run of its own. If these are learning "
        "rates or other settings, keep the best run of each: a law of all describes none of them. "
        "If they are seeds, all is well."
    ]


def diverged_notes(lines: Sequence[int], runs: Runs) -> list[str]:
    """Runs whose loss lies far above that of runs of their size and length."""
    excess = np.maximum(_above_smaller(runs), _above_others(runs))
    found = np.flatnonzero(excess > 0)
    if not len(found) or len(found) > len(runs) / 4:
        return []
    shown = ", ".join(f"line {lines[p]} ({runs.loss[p]:.3g})" for p in found[:5].tolist())
    what = "1 run looks" if len(found) == 1 else f"{len(found)} runs look"
    return [
        f"{what} diverged, with a loss {np.expm1(excess[found].min()):.0%} or more above what runs "
        f"of that size and length have: {shown}. So few can switch the law and ruin its forecasts: "
        "drop them, or train them again."
    ]


def _same_settings(runs: Runs) -> list[list[int]]:
    """Positions of the runs that share N, D and U, where that is more than one."""
    found: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for place, key in enumerate(zip(runs.N, runs.D, runs.U, strict=True)):
        found[tuple(float(f"{value:.4g}") for value in key)].append(place)
    return [group for group in found.values() if len(group) > 1]


def _is_number(rows: Sequence[Mapping[str, str]], name: str) -> bool:
    try:
        for row in rows:
            float(row[name].strip() or "nan")
    except ValueError:
        return False
    return True


def _refuse_shift(
    path: str,
    name: str,
    rows: Sequence[Mapping[str, str]],
    places: Sequence[Sequence[int]],
    runs: Runs,
) -> None:
    kinds = sorted({row[name].strip() for row in rows})
    if len(kinds) > len(rows) / 3:
        return  # the name of a run
    for first, second in pairwise(kinds):
        shifts = []
        for group in places:
            logs = {
                kind: [np.log(runs.loss[p]) for p in group if rows[p][name].strip() == kind]
                for kind in (first, second)
            }
            if logs[first] and logs[second]:
                shifts.append(float(np.mean(logs[first]) - np.mean(logs[second])))
        one_way = len(shifts) >= 3 and (min(shifts) > 0 or max(shifts) < 0)
        if one_way and abs(np.median(shifts)) > SHIFT:
            raise UserError(
                f"{path}: on the same runs, losses of {name}={first} and {name}={second} differ by "
                f"{np.expm1(abs(np.median(shifts))):.0%}, always one way. One law cannot be of "
                f"both: keep one with --where {name}={first}."
            )


def _above_smaller(runs: Runs) -> np.ndarray:
    """By how much the log loss lies above that of any smaller run on less data, all one-epoch."""
    logs, excess = np.log(runs.loss), np.zeros(len(runs))
    fresh = runs.epochs <= 1.5
    for place in np.flatnonzero(fresh):
        smaller = fresh & (runs.N[place] >= runs.N) & (runs.D[place] >= runs.D)
        least = logs[smaller].min()
        # Above two of them: one alone may be the one that is wrong.
        if (logs[smaller] < logs[place] - OUTLIER).sum() >= 2:
            excess[place] = logs[place] - least
    return np.where(excess > OUTLIER, excess, 0.0)


def _above_others(runs: Runs) -> np.ndarray:
    """By how much it lies above a smooth surface in log N, log D and epochs, fitted to medians.

    Of runs up to ``MOST_EPOCHS``, beyond which a loss may rise without a fault.
    """
    excess = np.zeros(len(runs))
    fresh = np.flatnonzero(runs.epochs <= MOST_EPOCHS)
    some = runs[fresh]
    axes = [np.log(some.N), np.log(some.D), np.log(some.epochs)]
    scaled = [(axis - axis.mean()) / axis.std() for axis in axes if len(some) and axis.std() > 1e-9]
    columns = [np.ones(len(some)), *scaled]
    columns += [a * b for place, a in enumerate(scaled) for b in scaled[place:]]
    if len(some) < max(LEAST_TO_REGRESS, 2 * len(columns)):
        return excess
    X_nK, logs = np.stack(columns, axis=1), np.log(some.loss)
    residuals, weights = logs, np.ones(len(some))
    for _ in range(60):  # least absolute deviations, by weights
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(root[:, None] * X_nK, root * logs, rcond=None)[0]
        residuals = logs - X_nK @ coefficients
        weights = 1 / np.maximum(np.abs(residuals), 1e-4)
    deviation = 1.4826 * np.median(np.abs(residuals))
    excess[fresh] = np.where(residuals > max(OUTLIER, 6 * deviation), residuals, 0.0)
    return excess
