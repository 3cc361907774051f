"""Whether what a model writes is broken, by the bounds of the verdict on it: for causes."""

from collections.abc import Mapping

from heldout.core.facts import Facts
from heldout.core.finite import finite
from heldout.core.measurement import Measurement
from heldout.diagnosis.harms import BREAKS, LOOPS
from heldout.diagnosis.primary import PRIMARY

SURPRISES = next(one.matters for one in PRIMARY if one.verdict == "generation") or 0.0


def came_apart(measured: Mapping[str, Measurement], facts: Facts) -> float | None:
    """By how much more it surprises the base model than people's text, nats/token; 0 if unsure."""
    written = measured.get("generated_nll_best")
    contrast = written.contrasts.get("human") if written else None
    if contrast is None:
        return None
    low = finite(contrast.interval.low)
    return contrast.difference if low is not None and low > 0 else 0.0


def loops(measured: Mapping[str, Measurement], facts: Facts) -> float | None:
    """Share of 4-grams that repeat beyond people's and the base model's; 0 if unsure.

    0 too where the text came apart, which is told first.
    """
    repeated = measured.get("seq_rep_4_best")
    if repeated is None or "base" not in repeated.contrasts:
        return None
    if (came_apart(measured, facts) or 0.0) >= SURPRISES:
        return 0.0
    beyond = repeated.contrasts.values()
    surely = min(each.interval.low for each in beyond)
    return min(each.difference for each in beyond) if surely > LOOPS else 0.0


def is_broken(measured: Mapping[str, Measurement], facts: Facts) -> bool | None:
    """Whether either is as much as makes the verdict red; None where neither was measured."""
    apart, looping = came_apart(measured, facts), loops(measured, facts)
    if apart is None and looping is None:
        return None
    return (apart or 0.0) >= SURPRISES or (looping or 0.0) >= BREAKS
