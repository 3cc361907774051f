"""The control of a run: what the same model reaches with nothing added."""

from dataclasses import replace
from typing import Any

from heldout.core.files import written_whole
from heldout.core.interrupt import StopRequest
from heldout.core.progress import Progress
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.side_by_side import Task

NAME = "control without regularization"


def control_task(context: RunContext, learning_rate: float) -> Task:
    """``train_control`` of the context's run."""
    arguments = {"known": context.told, "learning_rate": learning_rate}
    return Task(NAME, train_control, arguments)


def train_control(
    progress: Progress, request: StopRequest, *, known: dict[str, Any], learning_rate: float
) -> None:
    """The same rows and rate, no regularizers or augmentations, a fixed number of epochs.

    Leaves the model in ``fixed_epochs/``, whole or not at all.
    """
    context = RunContext.of_run(known, progress, request)
    run, recipe = context.run, context.recipe
    condition = Condition(
        replace(context, recipe=replace(recipe, regularizers={}, augment={})),
        learning_rate,
        recipe.control.fixed_epochs,
        history_name="control_history.jsonl",
        folder="checkpoints/control",
        keep_best=False,
    )
    trained = condition.train(NAME)
    context.check_interrupt(trained.outcome.interrupted)
    run.save_losses("fixed_epochs", "validation", trained.evaluations[-1].validation)
    with written_whole(run.path("fixed_epochs")) as partial:
        trained.save(partial)
