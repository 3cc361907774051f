"""Train one condition of a run: the recipe itself, its control, a search trial or a fold."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Evaluation, Regularizer, Stop
from heldout.core.run import Run
from heldout.jobs.kit.augmentations import windows_of
from heldout.jobs.kit.checkpoints import last_step, load_ended, load_weights, save_model
from heldout.jobs.kit.clean_losses import measurer
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.prepare import prepare, regularizers_of
from heldout.jobs.kit.target import Target
from heldout.training.keeper import Keeper
from heldout.training.loop import Outcome, Schedule, train
from heldout.training.steps import evaluation_weights
from heldout.training.windows import WindowDataset


@dataclass(frozen=True)
class Trained:
    """A model as it is after training, with what was measured on the way."""

    model: Any
    tokenizer: Any
    outcome: Outcome
    evaluations: list[Evaluation]
    regularizers: list[Regularizer]

    def save(self, folder: Path) -> None:
        """Save the weights that count: averages, where a regularizer keeps them."""
        with evaluation_weights(self.model, self.regularizers):
            save_model(self.model, self.tokenizer, folder)


@dataclass
class Condition:
    """One training with its keeper, ready to run or to resume."""

    run: Run
    target: Target
    recipe: Recipe
    texts: Texts
    learning_rate: float
    max_epochs: float
    history_name: str = "history.jsonl"
    folder: str = "checkpoints"
    keep_best: bool = True

    def train(
        self,
        *,
        stop: Callable[[], bool],
        progress: Progress,
        name: str,
        before_first_step: Callable[[Any, Any, WindowDataset, Schedule], None] | None = None,
    ) -> Trained:
        """Train, or go on from the newest checkpoint; the model holds the last weights."""
        loaded = self.target.load(self.recipe)
        tokenizer = loaded.tokenizer
        model = prepare(loaded, self.recipe, is_scratch=bool(self.target.from_scratch))
        regularizers = regularizers_of(self.recipe)
        windows = windows_of(self.run, self.target, self.recipe, self.texts.train, tokenizer)
        schedule = Schedule.of(len(windows), self.recipe, max_epochs=self.max_epochs)
        folder = self.run.path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        keeper = Keeper(
            self.run,
            measure=measurer(model, tokenizer, self.recipe, self.texts),
            save=lambda path: save_model(model, tokenizer, path),
            model=model,
            regularizers=regularizers,
            history_name=self.history_name,
            keep_best=self.keep_best,
            on_entry=lambda entry: progress.advance(0, _figures(entry)),
        )
        resumed_from = last_step(folder)
        keeper.restore(resumed_from if resumed_from is not None else -1)
        ended = _ended(keeper, schedule, resumed_from)
        if ended and resumed_from is not None:
            load_ended(model, folder / f"checkpoint-{resumed_from}", regularizers)
            outcome = Outcome(
                resumed_from, resumed_from / schedule.steps_per_epoch, ended, False, 0.0
            )
            return Trained(model, tokenizer, outcome, keeper.evaluations, regularizers)
        with ExitStack() as stack:
            stack.enter_context(progress.stage(name, schedule.max_steps))
            if before_first_step:
                before_first_step(model, tokenizer, windows, schedule)
            if resumed_from is None:
                keeper.evaluate(0, 0.0, None, 0.0)
            main = self.history_name == "history.jsonl"
            outcome = train(
                model,
                windows,
                self.recipe if main else self.recipe.replace(train={"report_to": ()}),
                regularizers,
                learning_rate=self.learning_rate,
                schedule=schedule,
                folder=folder,
                on_evaluate=keeper.evaluate,
                put_back=lambda: load_weights(model, self.run.best),
                resume=True,
                should_stop=stop,
                progress=progress,
            )
        return Trained(model, tokenizer, outcome, keeper.evaluations, regularizers)

    def train_unwatched(
        self, *, stop: Callable[[], bool], progress: Progress, name: str
    ) -> Trained:
        """Train for ``max_epochs`` with nothing held out; the length was set by folds."""
        loaded = self.target.load(self.recipe)
        model = prepare(loaded, self.recipe, is_scratch=bool(self.target.from_scratch))
        regularizers = regularizers_of(self.recipe)
        windows = windows_of(self.run, self.target, self.recipe, self.texts.train, loaded.tokenizer)
        schedule = Schedule.of(len(windows), self.recipe, max_epochs=self.max_epochs)
        folder = self.run.path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        resumed_from = last_step(folder)
        if resumed_from is not None and resumed_from >= schedule.max_steps:
            load_ended(model, folder / f"checkpoint-{resumed_from}", regularizers)
            epoch = resumed_from / schedule.steps_per_epoch
            done = Outcome(resumed_from, epoch, "all planned epochs are done", False, 0.0)
            return Trained(model, loaded.tokenizer, done, [], regularizers)
        with progress.stage(name, schedule.max_steps):
            outcome = train(
                model,
                windows,
                self.recipe,
                regularizers,
                learning_rate=self.learning_rate,
                schedule=schedule,
                folder=folder,
                on_evaluate=lambda *_: (Continue(), {}),
                resume=True,
                should_stop=stop,
                progress=progress,
            )
        return Trained(model, loaded.tokenizer, outcome, [], regularizers)


def _ended(keeper: Keeper, schedule: Schedule, step: int | None) -> str:
    """Why training had ended at the checkpoint of ``step``; empty if it goes on from there."""
    if step is None:
        return ""
    if keeper.evaluations and keeper.evaluations[-1].step == step:
        decision = keeper.decide()
        if isinstance(decision, Stop):
            return decision.reason
    return "all planned epochs are done" if step >= schedule.max_steps else ""


def _figures(entry: dict[str, Any]) -> str:
    kept = " (kept)" if entry["is_best"] else ""
    return f"train {entry['train_nll']:.3f}, held-out {entry['validation_nll']:.3f}{kept}"
