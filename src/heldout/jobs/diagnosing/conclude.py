"""From measurements and facts to verdict, causes, remedies and the kind of run."""

from dataclasses import asdict
from typing import Any

from heldout.core.facts import Facts
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.diagnosis import Diagnosis
from heldout.core.verdict import Verdicts
from heldout.diagnosis.causes import find_causes
from heldout.diagnosis.kind import kind_of_run
from heldout.diagnosis.remedies import remedies_for
from heldout.diagnosis.verdicts import verdicts_of


def conclude(
    target: str,
    base: str | None,
    measurements: list[Measurement | NotMeasured],
    facts: Facts,
    min_effect: float = 0.0,
) -> Diagnosis:
    """All that follows from the measurements by rules; what is only shown is left empty."""
    verdict = verdicts_of(measurements, min_effect=min_effect, facts=facts)
    causes = find_causes(measurements, facts, verdict.verdicts)
    return Diagnosis(
        target,
        base,
        facts.goal,
        measurements,
        Verdicts(verdict.headline, verdict.verdicts, causes),
        facts,
        remedies_for(causes, facts),
        kind=_kind(measurements, facts),
    )


def _kind(measurements: list[Measurement | NotMeasured], facts: Facts) -> dict[str, Any]:
    """By the history up to the judged model, and what it memorized beyond its controls."""
    until = [
        point for point in facts.history if facts.epochs is None or point.epoch <= facts.epochs
    ]
    excess = None
    for measured in measurements:
        if isinstance(measured, Measurement) and measured.name == "recital_best":
            control = "base" if "base" in measured.contrasts else "heldout"
            if measured.contrasts:
                excess = measured.contrasts[control].difference
    return asdict(
        kind_of_run(until, memorized_share=excess, worse_than_base=_worse_than_base(measurements))
    )


def _worse_than_base(measurements: list[Measurement | NotMeasured]) -> float | None:
    """By how much the loss on unseen text surely lies above the base model's, nats/token."""
    for measured in measurements:
        if isinstance(measured, Measurement) and measured.name == "test_nll_best":
            contrast = measured.contrasts.get("base")
            if contrast is not None and contrast.interval.low > 0:
                return contrast.difference
    return None
