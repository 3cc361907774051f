"""What the evaluations of a training tell of its causes: one number each, or None.

Every function takes measurements and facts, as those of features.py do, and reads the history.
"""

from collections.abc import Mapping
from itertools import pairwise

from heldout.core.facts import Facts, HistoryPoint
from heldout.core.measurement import Measurement
from heldout.diagnosis.scores import disagreement

MeasuredByName = Mapping[str, Measurement]

STANDARD_ERRORS = 2.0  # a rise is sure beyond so many
NO_JITTER = 0.5  # nats/token: a held-out loss that rises by more within an epoch is no noise
FIRST_EPOCH = 1.25  # what is evaluated up to here tells of the first epoch


def course_of(facts: Facts) -> list[HistoryPoint]:
    """Evaluations with a held-out loss, in order."""
    return [point for point in facts.history if point.validation_nll is not None]


def _loss(point: HistoryPoint) -> float:
    assert point.validation_nll is not None
    return point.validation_nll


def judged_of(course: list[HistoryPoint], facts: Facts) -> HistoryPoint:
    """The evaluation of the judged model: at its epoch, or the last one."""
    epoch = facts.epochs
    return course[-1] if epoch is None else min(course, key=lambda one: abs(one.epoch - epoch))


def rise(measured: MeasuredByName, facts: Facts) -> float | None:
    """Held-out loss of the judged model minus the lowest on the way there, nats/token."""
    course = course_of(facts)
    if len(course) < 2:
        return None
    judged = judged_of(course, facts)
    return _loss(judged) - min(map(_loss, course[: course.index(judged) + 1]))


def less_errors(risen: float, point: HistoryPoint) -> float:
    """Less two standard errors of that evaluation, where they are known."""
    return risen - STANDARD_ERRORS * (point.validation_error or 0.0)


def later_rise(measured: MeasuredByName, facts: Facts) -> float | None:
    """Held-out loss at the end of training minus the lowest, whichever model is judged.

    0 where that is not surely a rise.
    """
    course = course_of(facts)
    if len(course) < 2:
        return None
    risen = _loss(course[-1]) - min(map(_loss, course))
    error = course[-1].validation_error or 0.0
    return risen if risen > STANDARD_ERRORS * error else 0.0


def training_rise(measured: MeasuredByName, facts: Facts) -> float | None:
    """Training loss at the end minus the lowest on the way: what fits its rows does not rise."""
    losses = [point.train_nll for point in facts.history if point.train_nll is not None]
    return losses[-1] - min(losses) if len(losses) > 1 else None


def best_epoch(measured: MeasuredByName, facts: Facts) -> float | None:
    """Epoch of the lowest held-out loss; None where the log counts no epochs.

    None too where it was lowest before training and was not looked at again within the first
    epoch: it may have been lower in between.
    """
    course = course_of(facts)
    if len(course) < 2 or course[-1].epoch <= 0:
        return None
    lowest = min(course, key=_loss)
    if lowest.epoch == 0 and course[1].epoch > FIRST_EPOCH:
        return None
    return lowest.epoch


def score_gain(measured: MeasuredByName, facts: Facts) -> float | None:
    """By how much a score of the judged model is better than at the lowest loss, as a share."""
    found, course = disagreement(facts.history, facts.greater_is_better), course_of(facts)
    if found is None or found.name not in judged_of(course, facts).extra:
        return None
    return found.gain_at(judged_of(course, facts))


def first_epoch_rise(measured: MeasuredByName, facts: Facts) -> float | None:
    """Highest held-out loss within the first epoch and a bit, minus the loss at the start."""
    highest = _highest_early(facts)
    return None if highest is None else _loss(highest) - _loss(course_of(facts)[0])


def first_epoch_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """``first_epoch_rise`` if nothing after it lies below the start; else less what may be noise.

    Noise are two standard errors, and at most what no log jitters by.
    """
    highest, risen, course = _highest_early(facts), first_epoch_rise({}, facts), course_of(facts)
    if highest is None or risen is None:
        return None
    if len(course) > 2 and min(map(_loss, course[1:])) > _loss(course[0]):
        return risen
    return max(less_errors(risen, highest), risen - NO_JITTER)


def _highest_early(facts: Facts) -> HistoryPoint | None:
    """The highest evaluation of the first epoch; None where none was made before it."""
    course = course_of(facts)
    early = [point for point in course if 0 < point.epoch <= FIRST_EPOCH]
    if not course or course[0].epoch > 0 or not early:
        return None
    return max(early, key=_loss)


def late_gain_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of the whole held-out gain that came in the last third: a straight line has 1/3."""
    course = course_of(facts)
    if len(course) < 3:
        return None
    total = _loss(course[0]) - _loss(course[-1])
    if total <= 0:
        return 0.0
    wanted = course[0].epoch + (course[-1].epoch - course[0].epoch) * 2 / 3
    return (_loss_at(course, wanted) - _loss(course[-1])) / total


def _loss_at(course: list[HistoryPoint], epoch: float) -> float:
    """Between two evaluations, on the line between them."""
    for before, after in pairwise(course):
        if before.epoch <= epoch <= after.epoch and after.epoch > before.epoch:
            share = (epoch - before.epoch) / (after.epoch - before.epoch)
            return (1 - share) * _loss(before) + share * _loss(after)
    return _loss(course[-1])
