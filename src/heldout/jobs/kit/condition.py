"""Train one condition of a run: the recipe itself, its control, a fold or a part of the rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Evaluation, Regularizer, Weights
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.clean_losses import measurer
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.resumable import Unwatched, Watcher, train_or_resume
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.training.better_weights import chosen_weights
from heldout.training.keeper import Keeper
from heldout.training.loop import Outcome, Schedule
from heldout.training.planned_decay import PlannedDecay

MAIN_HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Trained:
    """A model as it is after training, with what was measured on the way.

    ``weights`` are those that count of the last step, ``decay`` that of the whole plan.
    """

    model: Any
    tokenizer: Any
    outcome: Outcome
    evaluations: list[Evaluation]
    regularizers: list[Regularizer]
    weights: Weights = "raw"
    decay: PlannedDecay | None = None

    def holding_weights(self) -> AbstractContextManager[None]:
        """A context in which the model holds the weights that count."""
        return chosen_weights(self.model, self.regularizers, self.weights)

    def save(self, folder: Path) -> None:
        """Save the weights that count."""
        with self.holding_weights():
            save_model(self.model, self.tokenizer, folder)


@dataclass(frozen=True)
class Condition:
    """One training by the recipe and on the rows of its context, ready to run or to resume.

    ``history_name`` and ``folder`` are relative to the run; trackers hear of the main history.
    """

    context: RunContext
    learning_rate: float
    max_epochs: float
    history_name: str = MAIN_HISTORY
    folder: str = "checkpoints"
    keep_best: bool = True

    def train(
        self,
        name: str,
        *,
        before_first_step: Callable[[Any, Any], None] | None = None,
        is_time_up: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Train, or go on from the newest checkpoint; the model holds the last weights.

        ``before_first_step`` is called with model and tokenizer; once ``is_time_up`` it ends.
        """
        context, setup = self.context, TrainingSetup.of(self.context)
        model, tokenizer, run = setup.model, setup.tokenizer, context.run
        keeper = self.keeper(
            model,
            setup.regularizers,
            measure=measurer(model, tokenizer, context.recipe, context.texts),
            save=lambda path: save_model(model, tokenizer, path),
        )

        def begin() -> None:
            if before_first_step:
                before_first_step(model, tokenizer)

        def put_back() -> None:
            load_weights(model, run.best)

        outcome = self._run(
            setup,
            keeper,
            name,
            put_back=put_back,
            before_first_step=begin,
            is_time_up=is_time_up,
        )
        return self._trained(setup, outcome, keeper.evaluations, keeper.evaluations[-1].weights)

    def keeper(
        self,
        model: Any,
        regularizers: Sequence[Regularizer],
        *,
        measure: Callable[[str], DocumentLosses],
        save: Callable[[Path], None],
    ) -> Keeper:
        """What watches this training and keeps its best checkpoint."""
        return Keeper(
            self.context.run,
            measure=measure,
            save=save,
            model=model,
            regularizers=regularizers,
            history_name=self.history_name,
            keep_best=self.keep_best,
            on_entry=self._tell,
        )

    def _tell(self, entry: dict[str, Any]) -> None:
        kept = " (kept)" if self.keep_best and entry["is_best"] else ""
        train, heldout = f"{entry['train_nll']:.3f}", f"{entry['validation_nll']:.3f}"
        if entry["other_nll"] is None:
            losses = f"train {train}, held-out {heldout}{kept}"
        elif entry["weights"] == "average":
            losses = f"train {train}, held-out {heldout}{kept}, raw {entry['other_nll']:.3f}"
        else:
            losses = f"train {train}, held-out {heldout}{kept}, average {entry['other_nll']:.3f}"
        self.context.progress.advance(0, losses)

    def train_unwatched(self, name: str, weights: Weights) -> Trained:
        """Train for ``max_epochs`` with nothing held out.

        That length, and ``weights`` as the better ones, were found by other trainings.
        """
        setup = TrainingSetup.of(self.context)
        return self._trained(setup, self._run(setup, Unwatched(), name), [], weights)

    def _trained(
        self,
        setup: TrainingSetup,
        outcome: Outcome,
        evaluations: list[Evaluation],
        weights: Weights,
    ) -> Trained:
        recipe, regularizers = self.context.recipe, setup.regularizers
        max_steps = Schedule.of(len(setup.windows), recipe).max_steps
        decay = PlannedDecay.of(regularizers, recipe, self.learning_rate, max_steps)
        model, tokenizer = setup.model, setup.tokenizer
        return Trained(model, tokenizer, outcome, evaluations, regularizers, weights, decay)

    def _run(self, setup: TrainingSetup, watcher: Watcher, name: str, **options: Any) -> Outcome:
        recipe = self.context.recipe
        training = setup.training(
            self.context,
            learning_rate=self.learning_rate,
            schedule=Schedule.of(len(setup.windows), recipe, max_epochs=self.max_epochs),
            folder=self.context.run.path(self.folder),
            is_tracked=self.history_name == MAIN_HISTORY,
        )
        return train_or_resume(training, watcher, self.context, name, **options)
