"""The course of a training from the entries of its log, and what is odd about them.

Entries are like those of a Trainer's ``log_history``: one kind with ``loss``, one with
``eval_loss`` or ``eval_NAME_loss``, each with ``step`` and mostly ``epoch``.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heldout.core.facts import HistoryPoint
from heldout.core.finite import finite
from heldout.diagnosis.jitter import rise_beyond_jitter
from heldout.diagnosis.scores import greater_is_better
from heldout.jobs.diagnosing.score_directions import score_name

_EVALUATION = re.compile(r"eval_(?:(.+)_)?loss")
# A training loss that lies above the held-out one all the way by a factor like this is a sum over
# accumulation steps or devices; a mean of batches before their update is higher by a few percent.
_SUMMED = 1.9
_SAME = 1e-6  # two losses are one, written twice
_SCORES = "scores"


@dataclass(frozen=True)
class Course:
    """``history`` is that of the evaluation ``name``; ``names`` are all there are.

    ``faults`` say what broke, ``notes`` what was made of the log; ``lows`` are the lowest and the
    last loss of each evaluation.
    """

    history: tuple[HistoryPoint, ...]
    training: tuple[float, ...]  # logged training losses, finite ones
    name: str
    names: tuple[str, ...]
    lows: Mapping[str, tuple[HistoryPoint, HistoryPoint]]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    died: bool  # its training loss became no number


def course_of(
    entries: Sequence[Mapping[str, Any]],
    state: Mapping[str, Any],
    name: str,
    directions: Mapping[str, bool],
) -> Course:
    """The history with one point per evaluation, by the evaluation of that name.

    name: of ``eval_NAME_loss``; "" takes ``eval_loss``, or the only one there is, or none.
    directions: scores beside those with well-known names, and whether greater is better.
    """
    entries = sorted(_with_epochs(entries, state), key=lambda entry: entry["step"])
    entries = [{**entry, _SCORES: _scores(entry, directions)} for entry in entries]
    names = _names(entries)
    logged = [entry for entry in entries if "loss" in entry]
    alive, dead = _alive(logged)
    notes: list[str] = []
    evaluated = {each: _evaluations(entries, each, notes) for each in names}
    chosen = name if name in names else names[0] if names and _is_clear(names) else ""
    losses, fault = _without_nan(evaluated.get(chosen, []), dead)
    points = _points(losses, alive) if evaluated.get(chosen) else [_logged(one) for one in alive]
    training = tuple(float(entry["loss"]) for entry in alive)
    points = _with_errors(_without_sums(points, notes), training)
    lows = {}
    for each in names:
        finite_ones, _ = _without_nan(evaluated[each], dead)
        if finite_ones:
            found = _points(finite_ones, ())
            lows[each] = (min(found, key=lambda point: point.validation_nll or 0.0), found[-1])
    return Course(
        tuple(points),
        training,
        chosen,
        tuple(names),
        lows,
        tuple([fault] if fault else []),
        tuple(notes),
        dead is not None,
    )


def _with_epochs(
    entries: Sequence[Mapping[str, Any]], state: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Each with a step and an epoch, which is read off the others where it is missing."""
    known = [
        (step, epoch)
        for entry in (*entries, {"step": state.get("global_step"), "epoch": state.get("epoch")})
        if (step := finite(entry.get("step"))) and (epoch := finite(entry.get("epoch")))
    ]
    known += [
        (step, epoch)
        for key in ("max_steps", "global_step")
        if (step := finite(state.get(key))) and step > 0
        if (epoch := finite(state.get("num_train_epochs")))
    ]
    per_epoch = known[0][0] / known[0][1] if known else 0.0
    done = []
    for entry in entries:
        step = finite(entry.get("step")) or 0.0
        epoch = finite(entry.get("epoch"))
        if epoch is None:
            epoch = step / per_epoch if per_epoch else 0.0
        done.append({**entry, "step": int(step), "epoch": epoch})
    return done


def _names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the evaluations, ``eval_loss`` as "" first."""
    found = dict.fromkeys(
        match[1] or ""
        for entry in entries
        for key in entry
        if (match := _EVALUATION.fullmatch(key))
    )
    return sorted(found, key=bool)


def _is_clear(names: Sequence[str]) -> bool:
    return len(names) == 1 or names[0] == ""


def _alive(
    logged: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any] | None]:
    """Training entries up to the one where training died, and that one.

    It died where the loss is no number, or exactly 0 beside a gradient norm that is none: a
    Trainer writes a NaN loss as 0.
    """
    for index, entry in enumerate(logged):
        loss, norm = finite(entry["loss"]), entry.get("grad_norm")
        lost = norm is not None and finite(norm) is None
        if loss is None or (loss == 0 and lost):
            return list(logged[:index]), entry
    return list(logged), None


def _evaluations(
    entries: Sequence[Mapping[str, Any]], name: str, notes: list[str]
) -> list[dict[str, Any]]:
    """Those of one name, in order, one a step; a loss may be NaN."""
    key = f"eval_{name}_loss" if name else "eval_loss"
    by_step: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        if key in entry:
            loss = finite(entry[key])
            shown = {**entry, "loss": math.nan if loss is None else loss}
            by_step.setdefault(entry["step"], []).append(shown)
    last = max(by_step, default=0)
    done: list[dict[str, Any]] = []
    for step, found in by_step.items():
        first, *more = [one for i, one in enumerate(found) if not _is_among(one, found[:i])]
        if more and step == last and done and _is_among(more[-1], done):
            notes.append(
                f"The last evaluation, at step {step}, is of the best checkpoint, loaded again: "
                f"{more[-1]['loss']:.4g}. It is no point of the curve."
            )
        elif more:
            notes.append(
                f"Step {step} was evaluated more than once, with {first['loss']:.4g} and "
                f"{more[-1]['loss']:.4g}: the later one counts."
            )
            first = more[-1]
        done.append(first)
    return done


def _is_among(entry: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    loss = entry["loss"]
    return any(
        math.isclose(loss, other["loss"], rel_tol=_SAME)
        or (math.isnan(loss) and math.isnan(other["loss"]))
        for other in others
    )


def _without_nan(
    evaluated: list[dict[str, Any]], dead: Mapping[str, Any] | None
) -> tuple[list[dict[str, Any]], str]:
    """Evaluations that have a loss, and what broke, if anything."""
    known = [entry for entry in evaluated if not math.isnan(entry["loss"])]
    if dead is not None:
        loss = "0 and its gradient norm is NaN" if finite(dead["loss"]) == 0 else "NaN"
        return [entry for entry in known if entry["step"] < dead["step"]], (
            f"Training died at {_place(dead)}: from there its "
            f"loss is {loss}, and no later checkpoint is of use."
        )
    broken = [entry for entry in evaluated if math.isnan(entry["loss"])]
    if not broken:
        return known, ""
    first = broken[0]
    if not known:
        return known, (
            f"Every evaluation is NaN, from step {first['step']} on. The training loss stays "
            "finite, so training did not die: look for held-out rows without a scored token, or "
            "for a loss that overflows in half precision."
        )
    if known[-1]["step"] < first["step"]:
        return known, (
            f"From {_place(first)}, on, every evaluation is NaN, "
            "while the training loss stays finite: what comes after is not told by this log."
        )
    steps = ", ".join(str(entry["step"]) for entry in broken[:5])
    return known, f"The evaluation at step {steps} is NaN and is left out."


def _place(entry: Mapping[str, Any]) -> str:
    """With the epoch where the log counts any."""
    step, epoch = entry["step"], entry["epoch"]
    return f"step {step}, epoch {epoch:.3g}" if epoch else f"step {step}"


def _points(
    evaluated: Sequence[Mapping[str, Any]], logged: Sequence[Mapping[str, Any]]
) -> list[HistoryPoint]:
    """One per evaluation, with the mean training loss since the one before."""
    points, since = [], -1
    for entry in evaluated:
        between = [float(one["loss"]) for one in logged if since < one["step"] <= entry["step"]]
        mean = sum(between) / len(between) if between else None
        points.append(_point(entry, mean, entry["loss"]))
        since = entry["step"]
    return points


def _logged(entry: Mapping[str, Any]) -> HistoryPoint:
    return _point(entry, float(entry["loss"]), None)


def _point(entry: Mapping[str, Any], train: float | None, heldout: float | None) -> HistoryPoint:
    rate = finite(entry.get("learning_rate"))
    extra = dict(entry[_SCORES])
    if (norm := finite(entry.get("grad_norm"))) is not None:
        extra["grad_norm"] = norm
    return HistoryPoint(entry["step"], entry["epoch"], train, heldout, rate, extra=extra)


def _scores(entry: Mapping[str, Any], directions: Mapping[str, bool]) -> dict[str, float]:
    return {
        score_name(key): value
        for key in entry
        if key.startswith("eval_") and greater_is_better(score_name(key), directions) is not None
        if (value := finite(entry[key])) is not None
    }


def _without_sums(points: list[HistoryPoint], notes: list[str]) -> list[HistoryPoint]:
    """Training losses that are sums of several batches' are no losses of a token."""
    ratios = [
        point.train_nll / point.validation_nll
        for point in points
        if point.train_nll is not None and point.validation_nll
    ]
    if not ratios or min(ratios) < _SUMMED:
        return points
    notes.append(
        f"The logged training loss is {sorted(ratios)[len(ratios) // 2]:.3g} times the held-out "
        "one all the way: it looks like a sum over accumulation steps or devices, and is not used."
    )
    return [replace(point, train_nll=None) for point in points]


def _with_errors(points: list[HistoryPoint], training: Sequence[float]) -> list[HistoryPoint]:
    """Each with the error that leaves of its rise what is more than jitter.

    A rise counts as sure beyond two errors, so half of what is not sure is the error.
    """
    done, losses = [], []
    for point in points:
        if point.validation_nll is not None:
            losses.append(point.validation_nll)
            risen = point.validation_nll - min(losses)
            unsure = max(0.0, risen - rise_beyond_jitter(losses, training))
            point = replace(point, validation_error=unsure / 2)
        done.append(point)
    return done
