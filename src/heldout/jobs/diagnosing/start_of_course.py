"""The base model as epoch 0 of a course: a Trainer makes no evaluation before its first step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heldout.core.facts import Facts, HistoryPoint
from heldout.core.losses import DocumentLosses

SAME_TEXT = 0.1  # of the loss: a log that lies further off was measured on other text

Losses = Mapping[tuple[str, str], DocumentLosses]  # by model and part


def with_start(facts: Facts, losses: Losses, *, was_measured: bool) -> Facts:
    """The facts with the base model's losses as the first point of the history.

    Nothing is added where there is no base, where the history begins before training, or where it
    is that of a log (``was_measured`` False) whose loss of the judged model is not the one measured
    here: then it is of other text. What is left of a difference is taken off the base's loss.
    """
    history = facts.history
    base, before = losses.get(("base", "test")), losses.get(("base", "train"))
    judged = losses.get(("best", "test"))
    logged = [point for point in history if point.validation_nll is not None]
    if base is None or before is None or judged is None or not logged:
        return facts
    if history[0].step <= 0 or history[0].epoch <= 0:
        return facts
    level = base.nats_per_token
    if not was_measured:
        apart = _logged_loss(logged, facts.epochs) - judged.nats_per_token
        if abs(apart) > SAME_TEXT * judged.nats_per_token:
            return facts
        level += apart
    return replace(facts, history=(HistoryPoint(0, 0.0, before.nats_per_token, level), *history))


def _logged_loss(logged: Sequence[HistoryPoint], epochs: float | None) -> float:
    """Of the judged model: at its epoch, or the last one."""
    at = logged[-1] if epochs is None else min(logged, key=lambda p: abs(p.epoch - epochs))
    assert at.validation_nll is not None
    return at.validation_nll
