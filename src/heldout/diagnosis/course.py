"""Figures of a training's course that tell its kind: one number each, absent where not known."""

from collections.abc import Mapping, Sequence

from heldout.core.facts import HistoryPoint

Figures = Mapping[str, float]
FITTED_ACCURACY = 0.95  # of the training text


def figures_of(
    history: Sequence[HistoryPoint],
    memorized_share: float | None,
    losses_by_size: Sequence[tuple[float, float]],
    *,
    swing: float,
    fitted: float,
) -> dict[str, float]:
    """What ``kinds.toml`` may name. Losses in the unit of the history, shares from 0 to 1.

    ``swing`` is the smallest rise of the held-out loss to a peak, as a share of the low before it;
    ``fitted`` the share of its start that the training loss of fitted text has come down to.
    """
    course = [point for point in history if point.validation_nll is not None]
    found = {"num_evaluations": float(len(course)), **_peak_over_sizes(losses_by_size)}
    if memorized_share is not None:
        found["memorized_share"] = memorized_share
    if len(course) < 2:
        return found
    steps = [float(point.step) for point in course]
    losses = [p.validation_nll for p in course if p.validation_nll is not None]
    found |= _heldout_losses(steps, losses)
    if course[-1].validation_error is not None:
        found["error"] = course[-1].validation_error
    found |= _peak(steps, losses, swing)
    found |= _training_losses(course)
    found |= _diversity_and_norm(course)
    found |= _accuracies(course, _fitted_step(course, fitted))
    return found


def _column(course: Sequence[HistoryPoint], name: str) -> list[tuple[float, float]]:
    """(step, value) of an extra value where it was measured; empty where only once or never."""
    values = [(float(point.step), point.extra[name]) for point in course if name in point.extra]
    return values if len(values) > 1 else []


def _heldout_losses(steps: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    start, end, low = losses[0], losses[-1], min(losses)
    return {
        "start": start,
        "end": end,
        "low": low,
        "low_step": steps[losses.index(low)],
        "rise": end - low,
        "fall": start - end,
        "deepest_fall": start - low,
        "late_share": _late_share(steps, losses),
    }


def _late_share(steps: Sequence[float], losses: Sequence[float]) -> float:
    """Share of the whole fall of the held-out loss that came in the last third of the steps."""
    total = losses[0] - losses[-1]
    wanted = steps[0] + (steps[-1] - steps[0]) * 2 / 3
    before_step, before = steps[0], losses[0]
    at_wanted = losses[0]
    for step, loss in zip(steps, losses, strict=True):
        if step >= wanted:
            share = (wanted - before_step) / ((step - before_step) or 1.0)
            at_wanted = before + share * (loss - before)
            break
        before_step, before = step, loss
    return (at_wanted - losses[-1]) / total if total > 0 else 0.0


def _peak(steps: Sequence[float], losses: Sequence[float], swing: float) -> dict[str, float]:
    """The peak between two descents.

    Two neighboring evaluations must lie high: a single one is noise, or was rolled back.
    """
    found, best = None, 0.0
    for index in range(1, len(losses) - 1):
        rise = losses[index] - min(losses[:index])
        fall = losses[index] - min(losses[index + 1 :])
        if min(rise, fall) > best:
            found, best = (index, rise, fall), min(rise, fall)
    if found is None:
        return {}
    index, rise, fall = found
    trough = losses[index] - rise
    beside = max(losses[index - 1], losses[index + 1])
    if rise < swing * trough or beside < trough + rise / 2:
        return {}
    second_low = min(losses[index:])
    return {
        "peak_step": steps[index],
        "peak_loss": losses[index],
        "peak_rise": rise,
        "peak_fall": fall,
        "trough": trough,
        "second_low": second_low,
        "second_rise": losses[-1] - second_low,
    }


def _training_losses(course: Sequence[HistoryPoint]) -> dict[str, float]:
    losses = [point.train_nll for point in course if point.train_nll is not None]
    if len(losses) < 2:
        return {}
    found = {"training_end": losses[-1]}
    if course[0].train_nll and course[1].train_nll is not None:
        found["training_share_first"] = course[1].train_nll / course[0].train_nll
    end = course[-1].validation_nll
    if end:
        found["gap_share"] = (end - losses[-1]) / end
    if course[-1].train_nll is not None and losses[0]:
        found["training_share"] = losses[-1] / losses[0]
    return found


def _diversity_and_norm(course: Sequence[HistoryPoint]) -> dict[str, float]:
    found: dict[str, float] = {}
    if diversity := _column(course, "ttr"):
        first, last = diversity[0][1], diversity[-1][1]
        found |= {"ttr_start": first, "ttr_end": last, "ttr_rise": last - first}
    if norms := _column(course, "weight_norm"):
        highest = max(value for _, value in norms)
        found |= {"weight_norm_highest": highest, "weight_norm_end": norms[-1][1]}
    return found


def _fitted_step(course: Sequence[HistoryPoint], fitted: float) -> float | None:
    """The first step at which the training text counts as fitted."""
    losses = [point.train_nll for point in course if point.train_nll is not None]
    start = losses[0] if len(losses) > 1 else None
    for point in course:
        by_loss = start and point.train_nll is not None and point.train_nll / start <= fitted
        if by_loss or point.extra.get("training_accuracy", 0.0) >= FITTED_ACCURACY:
            return float(point.step)
    return None


def _accuracies(course: Sequence[HistoryPoint], fitted_step: float | None) -> dict[str, float]:
    """Held-out accuracy, and how late it rose once the training text was fitted."""
    found = {} if fitted_step is None else {"fitted_step": fitted_step}
    accuracy = _column(course, "accuracy")
    if not accuracy:
        return found
    last = accuracy[-1][1]
    found |= {
        "accuracy_start": accuracy[0][1],
        "accuracy_end": last,
        "accuracy_highest": max(value for _, value in accuracy),
    }
    if fitted_step is None:
        return found
    since = [(step, value) for step, value in accuracy if step >= fitted_step]
    if since and since[0][1] <= last:
        first = since[0][1]
        halfway = next(step for step, value in since if value >= (first + last) / 2)
        found |= {
            "accuracy_when_fitted": first,
            "late_rise": last - first,
            "halfway_step": halfway,
            "lateness": halfway / max(fitted_step, 1.0),
        }
    return found


def _peak_over_sizes(losses_by_size: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The amount of training data whose loss lies highest over the lower ones on both sides."""
    ordered = sorted(losses_by_size)
    found: dict[str, float] = {}
    for index in range(1, len(ordered) - 1):
        size, loss = ordered[index]
        less = min(other for _, other in ordered[:index])
        more = min(other for _, other in ordered[index + 1 :])
        factor = loss / max(less, more)
        if not found or factor > found["size_peak"]:
            found = {
                "size_peak": factor,
                "peak_size": size,
                "peak_size_loss": loss,
                "less_data_loss": less,
                "more_data_loss": more,
            }
    return found
