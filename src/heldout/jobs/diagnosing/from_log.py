"""A diagnosis where only the log of a training was given, and no model."""

from dataclasses import replace

from heldout.core.facts import Facts, HistoryPoint
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.diagnosis import Diagnosis
from heldout.core.verdict import Verdict, Verdicts
from heldout.diagnosis.features import rise, rise_surely
from heldout.diagnosis.jitter import LEAST_EVALUATIONS, large_rise
from heldout.diagnosis.scores import disagreement
from heldout.jobs.diagnosing.conclude import conclude
from heldout.jobs.diagnosing.keep import checkpoints_to_keep
from heldout.jobs.diagnosing.trainer_logs import TrainerLog

_BEYOND = (
    "A log cannot tell what is recited, whether the validation rows leaked into training, or how "
    "the model compares with its base: give the model with --train, --heldout and --base.",
    "Its training loss was measured with dropout and penalties, so it is no measure of the gap.",
)


def diagnosis_of_log(target: str, log: TrainerLog, facts: Facts) -> Diagnosis:
    """What the history tells; nothing is measured. ``facts`` are the log's, and what is known."""
    reason = "only the log was given: it holds no documents, so nothing can be told of them"
    measurements: list[Measurement | NotMeasured] = [
        NotMeasured(name, reason)
        for name in (
            "test_nll_best",
            "generalization_gap_best",
            "generated_nll_best",
            "recital_best",
            "ece_best",
        )
    ]
    result = conclude(target, None, measurements, facts)
    fit = _fit(log, facts)
    has_risen = (rise_surely({}, facts) or 0) > 0
    kept = checkpoints_to_keep(facts.history, log.folder, log, has_risen=has_risen)
    told = [*log.course.faults, *_told(log, facts), *kept, *log.course.notes]
    verdicts = Verdicts(
        log.course.faults[0] if log.course.faults else fit.sentence,
        {**result.verdict.verdicts, "fit": fit},
        result.verdict.causes,
    )
    return replace(result, verdict=verdicts, warnings=[*told, *_BEYOND])


def _fit(log: TrainerLog, facts: Facts) -> Verdict:
    """Red where the loss has surely risen or training died; a log alone is never green."""
    if log.course.died:
        return Verdict("red", log.course.faults[0])
    if log.course.faults and not facts.history:
        return Verdict("unknown", log.course.faults[0])
    risen, surely = rise({}, facts), rise_surely({}, facts)
    if not _evaluated(facts) and len(log.course.names) > 1:
        return Verdict(
            "unknown",
            "Not measured: the log holds several evaluations, and none was named to judge by.",
        )
    if risen is None or surely is None:
        return Verdict("unknown", "Not measured: the log holds fewer than two evaluations.")
    if surely > 0 and (found := disagreement(facts.history, facts.greater_is_better)):
        low, high = (each.extra[found.name] for each in (found.by_loss, found.by_score))
        return Verdict(
            "yellow",
            f"By the log, the held-out loss has risen by {risen:.3f} since step "
            f"{found.by_loss.step} while {found.name} went from {low:.3g} to {high:.3g}: judge by "
            "the one that the model is for.",
        )
    if surely > 0:
        best = _lowest(facts)
        return Verdict(
            "red",
            f"By the log, the end is past its best: the held-out loss has risen by {risen:.3f} "
            f"since step {best.step}, more than it jitters.",
        )
    if len(_evaluated(facts)) < LEAST_EVALUATIONS and risen > 0:
        return Verdict("unknown", _too_few(log, facts, risen))
    return Verdict(
        "yellow",
        "By the log, the held-out loss has not surely risen; whether the model is better than its "
        "base was not measured.",
    )


def _too_few(log: TrainerLog, facts: Facts, risen: float) -> str:
    num = len(_evaluated(facts))
    if len(log.course.training) < LEAST_EVALUATIONS:
        yardstick = "and too few training losses to tell how far a loss jitters"
    else:
        jitter = large_rise(log.course.training)
        yardstick = f"and a rise of {risen:.3f} is no more than losses jitter ({jitter:.3f})"
    return (
        f"The log cannot tell: it holds {num} evaluations, {yardstick}. Evaluate more often, or "
        "give the model."
    )


def _evaluated(facts: Facts) -> list[HistoryPoint]:
    return [point for point in facts.history if point.validation_nll is not None]


def _lowest(facts: Facts) -> HistoryPoint:
    return min(_evaluated(facts), key=lambda point: point.validation_nll or 0.0)


def _told(log: TrainerLog, facts: Facts) -> list[str]:
    """What the held-out loss did."""
    course = log.course
    if not _evaluated(facts):
        if len(course.names) < 2:
            none = "The log holds no evaluation: set eval_strategy, or nothing can be told."
            return [] if course.faults else [none]
        return [
            *(_low_and_end(f"By eval_{name}_loss", *ends) for name, ends in course.lows.items()),
            "The log holds several evaluations: name the one to judge by with --evaluation.",
        ]
    best, last = _lowest(facts), _evaluated(facts)[-1]
    start = f"By eval_{course.name}_loss" if course.name else "By the log"
    return [_low_and_end(start, best, last)]


def _low_and_end(start: str, best: HistoryPoint, last: HistoryPoint) -> str:
    assert best.validation_nll is not None
    assert last.validation_nll is not None
    if best.step == last.step:
        return (
            f"{start}, the held-out loss was lowest at its last evaluation, {_place(best)} "
            f"({best.validation_nll:.4f})."
        )
    return (
        f"{start}, the held-out loss was lowest at {_place(best)} ({best.validation_nll:.4f}), and "
        f"is {last.validation_nll - best.validation_nll:.4f} higher at the end, {_place(last)}."
    )


def _place(point: HistoryPoint) -> str:
    """With the epoch where the log counts any."""
    if point.epoch > 0:
        return f"epoch {point.epoch:.3g}, step {point.step}"
    return f"step {point.step}"
