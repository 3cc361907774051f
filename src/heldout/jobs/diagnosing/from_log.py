"""A diagnosis where only the log of a training was given, and no model."""

from dataclasses import replace

from heldout.core.facts import Facts
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.diagnosis import Diagnosis
from heldout.jobs.diagnosing.conclude import conclude


def diagnosis_of_log(target: str, facts: Facts) -> Diagnosis:
    """What the history tells; nothing is measured."""
    reason = "only the log was given: it holds no documents, so nothing can be told of them"
    measurements: list[Measurement | NotMeasured] = [
        NotMeasured(name, reason)
        for name in ("test_nll_best", "generalization_gap_best", "recital_best", "ece_best")
    ]
    return replace(conclude(target, None, measurements, facts), warnings=_warnings(facts))


def _warnings(facts: Facts) -> list[str]:
    """Sentences for the reader; the first says what the log does tell, the others what not."""
    seen = [point for point in facts.history if point.validation_nll is not None]
    if not seen:
        told = "The log holds no evaluation: set eval_strategy, or nothing can be told."
    else:
        best = min(seen, key=lambda point: point.validation_nll or 0.0)
        last = seen[-1]
        rise = (last.validation_nll or 0.0) - (best.validation_nll or 0.0)
        told = (
            f"By the log, the held-out loss was lowest at epoch {best.epoch:.3g} "
            f"({best.validation_nll:.4f}) and is {rise:.4f} higher at the end, epoch "
            f"{last.epoch:.3g}."
        )
    return [
        told,
        "A log cannot tell whether a difference is more than chance, what is recited, whether the "
        "validation rows leaked into training, or how the model compares with its base: give the "
        "model with --train, --heldout and --base.",
        "Its training loss was measured with dropout and penalties, so it is no measure of the "
        "gap.",
    ]
