"""The control of a run: what the same model reaches with nothing added."""

from dataclasses import replace

from heldout.core.files import written_whole
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.context import RunContext


def train_control(context: RunContext, learning_rate: float) -> None:
    """The same rows and rate, no regularizers or augmentations, a fixed number of epochs.

    Leaves the model in ``fixed_epochs/``.
    """
    run, recipe = context.run, context.recipe
    condition = Condition(
        replace(context, recipe=replace(recipe, regularizers={}, augment={})),
        learning_rate,
        recipe.control.fixed_epochs,
        history_name="control_history.jsonl",
        folder="checkpoints/control",
        keep_best=False,
    )
    trained = condition.train("control without regularization")
    context.check_interrupt(trained.outcome.interrupted)
    run.save_losses("fixed_epochs", "validation", trained.evaluations[-1].validation)
    with written_whole(run.path("fixed_epochs")) as partial:
        trained.save(partial)
