"""What cannot be right, or looks wrong, in a table of runs: units, settings and losses mixed."""

# n runs, K kinds of them

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from heldout.core.errors import UserError
from heldout.scaling.runs import Runs
from heldout.scaling.surface import residuals_of_surface

LEAST_COUNT = 1e4  # parameters, or tokens: no language model has fewer
MOST_NATS = 12.5  # per token, a uniform guess over 270,000 tokens
HIGH_NATS = 4.0  # per token: models of 1e7 parameters stay below after 1e9 tokens of text
MOST_BITS_PER_BYTE = 8.0
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
    apart = _shifted_notes(path, rows, used, runs)
    if not places:
        return apart
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
        return apart
    by = f" (they differ in {', '.join(others[:4])})" if others else ""
    most = max(map(len, places))
    return [
        *apart,
        f"{len(places)} pairs of N and D have several runs, up to {most}{by}, with losses up to "
        f"{np.expm1(spread):.1%} apart, and each counts as a run of its own. If these are learning "
        "rates or other settings, keep the best run of each: a law of all describes none of them. "
        "If they are seeds, all is well.",
    ]


def _same_settings(runs: Runs) -> list[list[int]]:
    """Positions of the runs that share N, D and U, where that is more than one."""
    found: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for place, key in enumerate(zip(runs.N, runs.D, runs.U, strict=True)):
        found[tuple(float(f"{value:.4g}") for value in key)].append(place)
    return [group for group in found.values() if len(group) > 1]


def _shifted_notes(
    path: str, rows: Sequence[Mapping[str, str]], used: Sequence[str], runs: Runs
) -> list[str]:
    """Columns of words that shift the loss of runs which need share no size and length.

    By how much better a smooth surface in N, D and epochs fits with a shift for each word. A word
    that goes with one size or one length alone cannot be told from these.
    """
    notes = []
    for name in rows[0]:
        words = np.array([row[name].strip() for row in rows])
        kinds, of_kind, counts = np.unique(words, return_inverse=True, return_counts=True)
        if name in used or not 2 <= len(kinds) <= len(rows) / 4 or _is_number(rows, name):
            continue
        axes = (runs.N, runs.D, runs.epochs)
        if counts.min() < 3 or any(_is_one_value(axis, of_kind) for axis in axes[:2]):
            continue
        shifts_nK = (of_kind[:, None] == np.arange(1, len(kinds))).astype(float)
        alone, together = (residuals_of_surface(runs, each) for each in (None, shifts_nK))
        if alone is None or together is None:
            continue
        spread = 1.4826 * float(np.median(np.abs(together.residuals)))
        without = float(np.sqrt((alone.residuals**2).mean()))
        steps = np.concatenate(([0.0], together.shifts))
        apart = float(np.ptp(steps))
        if apart > max(SHIFT, 4 * spread) and without > 2 * spread:
            low, high = kinds[np.argmin(steps)], kinds[np.argmax(steps)]
            notes.append(
                f"Losses of {name}={high} lie {np.expm1(apart):.0%} above those of {name}={low}, "
                "beyond what N, D and epochs explain. If these are two losses, or two ways of "
                f"training, one law cannot be of both: keep one with --where {name}={low}."
            )
    return notes


def _is_one_value(axis: np.ndarray, of_kind: np.ndarray) -> bool:
    """Whether each kind has one size, or one length, of its own."""
    return all(np.ptp(np.log(axis[of_kind == kind])) < 0.01 for kind in np.unique(of_kind))


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
