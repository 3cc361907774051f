"""Measure checkpoints as training goes, keep the best, and let the regularizers decide."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Continue, Decision, Evaluation, Regularizer, RollBack, Stop
from heldout.core.run import Run
from heldout.core.run_files import HistoryEntry
from heldout.training.better_weights import better_weights

OTHER = "validation-other"  # losses of the weights that were measured beside, and no better


class Keeper:
    """The history of a condition; ``best/`` always holds the checkpoint of its lowest loss.

    ``measure(part)`` returns the losses of the current model on validation or train. Where weights
    are averaged, the better of the average and the raw weights counts. State lies in files alone
    (history and per-document losses), so a resumed run continues with the same best and the same
    patience.
    """

    def __init__(
        self,
        run: Run,
        *,
        measure: Callable[[str], DocumentLosses],
        save: Callable[[Path], None],
        model: Any,
        regularizers: Sequence[Regularizer],
        history_name: str = "history.jsonl",
        keep_best: bool = True,
        on_entry: Callable[[dict[str, Any]], None] = lambda entry: None,
    ):
        self.run = run
        self.measure = measure
        self.save = save
        self.model = model
        self.regularizers = regularizers
        self.history_name = history_name
        self.keep_best = keep_best
        self.on_entry = on_entry
        self.evaluations: list[Evaluation] = []

    def restore(self, step: int) -> None:
        """Go back to the state right after the evaluation at ``step``."""
        self.run.truncate_history(step, self.history_name)
        self.evaluations = evaluations_of(self.run, self.history_name)
        recover(self.run.best)

    @property
    def last_measured(self) -> int | None:
        """Step of the newest evaluation."""
        return self.evaluations[-1].step if self.evaluations else None

    @property
    def best(self) -> Evaluation:
        return min(self.evaluations, key=lambda evaluation: evaluation.validation.nats_per_token)

    @property
    def kept(self) -> str:
        """Where the best checkpoint lies, in a sentence."""
        if not (self.keep_best and self.evaluations):
            return ""
        return f"{self.run.best} holds the best checkpoint so far, of step {self.best.step}."

    def evaluate(
        self, step: int, epoch: float, training_loss: float | None, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        """Measure, record, keep; returns what the regularizers decide, and main figures."""

        def measure() -> DocumentLosses:
            return self.measure("validation")

        with better_weights(self.model, self.regularizers, measure, step, epoch) as found:
            return self.record(found, training_loss, learning_rate)

    def record(
        self, found: Evaluation, training_loss: float | None, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        """As ``evaluate``, of an evaluation whose weights the model holds now."""
        validation, train = found.validation, self.measure("train")
        change = validation.minus(self.best.validation) if self.evaluations else None
        is_best = change is None or change.value < 0
        if is_best and self.keep_best:
            replace_folder(self.run.best, self.save)
        level = validation.estimate()
        self.run.save_losses(self._name(found.step), "validation", validation)
        if found.other is not None:
            self.run.save_losses(self._name(found.step), OTHER, found.other)
        self.evaluations.append(found)
        decision = self.decide()
        entry = HistoryEntry(
            step=found.step,
            epoch=found.epoch,
            validation_nll=level.value,
            validation_low=level.interval.low,
            validation_high=level.interval.high,
            train_nll=train.nats_per_token,
            training_loss=training_loss,
            learning_rate=learning_rate,
            is_best=is_best,
            change_low=change.interval.low if change else None,
            change_high=change.interval.high if change else None,
            rolled_back=isinstance(decision, RollBack),
            weights=found.weights,
            other_nll=None if found.other is None else found.other.nats_per_token,
        ).to_json()
        self.run.append_history(entry, self.history_name)
        self.on_entry(entry)
        return decision, {key: entry[key] for key in ("validation_nll", "train_nll")}

    def decide(self) -> Decision:
        """What the regularizers decide on the evaluations so far."""
        return decision_of(self.regularizers, self.evaluations)

    def _name(self, step: int) -> str:
        return _name(self.history_name, step)


def evaluations_of(run: Run, history_name: str) -> list[Evaluation]:
    """What a training has measured on held-out rows, in its order."""
    found = []
    for entry in run.history(history_name):
        name, known = _name(history_name, entry["step"]), HistoryEntry.from_json(entry)
        losses = run.losses(name, "validation")
        assert losses is not None, f"evaluation of step {known.step} is missing"
        other = None if known.other_nll is None else run.losses(name, OTHER)
        found.append(Evaluation(known.step, known.epoch, losses, known.weights, other))
    return found


def _name(history_name: str, step: int) -> str:
    """Of the losses of an evaluation."""
    return f"{history_name.removesuffix('history.jsonl')}step-{step:06d}"


def decision_of(regularizers: Sequence[Regularizer], evaluations: Sequence[Evaluation]) -> Decision:
    """The first Stop of any regularizer, else the first RollBack."""
    decisions = [regularizer.decide(evaluations) for regularizer in regularizers]
    for kind in (Stop, RollBack):
        for decision in decisions:
            if isinstance(decision, kind):
                return decision
    return Continue()


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside ``target``, then swap; ``recover`` mends a kill in between."""
    partial = target.with_name(target.name + ".partial")
    old = target.with_name(target.name + ".old")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """After a kill during ``replace_folder``: the new folder if it is whole, else the old one."""
    old = target.with_name(target.name + ".old")
    if not target.exists() and old.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(target.with_name(target.name + ".partial"), ignore_errors=True)
