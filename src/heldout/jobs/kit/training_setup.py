"""What a training starts with: a fresh model, its windows and its regularizers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.regularizer import Regularizer
from heldout.jobs.kit.augmentations import windows_of
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.places import NOTHING, Needs, Places
from heldout.jobs.kit.prepare import load_prepared, regularizers_of
from heldout.training.loop import Schedule, Training
from heldout.training.windows import WindowDataset


@dataclass(frozen=True)
class TrainingSetup:
    """Made anew for every training of a run."""

    model: Any
    tokenizer: Any
    windows: WindowDataset
    regularizers: list[Regularizer]

    @classmethod
    def of(cls, context: RunContext) -> "TrainingSetup":
        """Load the target as the context's recipe wants it, and cut its training rows."""
        recipe, rows = context.recipe, context.texts.train
        model, tokenizer = load_prepared(context.target, recipe)
        windows = windows_of(context.run, context.target, recipe, rows, tokenizer)
        return cls(model, tokenizer, windows, regularizers_of(recipe))

    def training(
        self,
        context: RunContext,
        *,
        learning_rate: float,
        schedule: Schedule,
        folder: Path,
        is_tracked: bool,
    ) -> Training:
        """``is_tracked``: whether it reports to the recipe's trackers."""
        recipe = context.recipe
        return Training(
            self.model,
            self.windows,
            recipe if is_tracked else recipe.replace(train={"report_to": ()}),
            self.regularizers,
            learning_rate,
            schedule,
            folder,
        )


def planned_places(context: RunContext, num_tasks: int) -> Places:
    """How many trainings like the context's go on at once; loads a model to count it."""
    recipe = context.recipe
    if recipe.train.side_by_side == 1:
        return Places.plan(recipe, 1, NOTHING)
    setup = TrainingSetup.of(context)
    schedule = Schedule.of(len(setup.windows), recipe)
    needs = Needs.of(setup.model, setup.windows, recipe, setup.regularizers, schedule.max_steps)
    return Places.plan(recipe, num_tasks, needs)
