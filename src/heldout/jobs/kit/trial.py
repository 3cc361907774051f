"""One training of a search: a fresh model, trained to its end and measured once."""

from heldout.core.errors import TrainingDiverged
from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Continue, Decision
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.training.better_weights import better_weights
from heldout.training.loop import Schedule, train


def try_training(
    context: RunContext, setup: TrainingSetup, name: str, *, learning_rate: float, steps: int
) -> DocumentLosses | None:
    """Losses of the validation rows after so many steps, which are the recipe's whole schedule.

    None where training diverged. Nothing is kept: neither checkpoints nor logs.
    """
    reached: list[DocumentLosses] = []

    def measure() -> DocumentLosses:
        rows = context.texts.validation
        return losses_of(setup.model, setup.tokenizer, rows, context.recipe)

    def evaluate(step: int, epoch: float, *_: float) -> tuple[Decision, dict[str, float]]:
        with better_weights(setup.model, setup.regularizers, measure, step, epoch) as found:
            reached.append(found.validation)
        return Continue(), {}

    training = setup.training(
        context,
        learning_rate=learning_rate,
        schedule=Schedule(steps, steps, 1),
        folder=context.run.path("checkpoints/search"),
        is_tracked=False,
    )
    with context.progress.stage(name, steps):
        try:
            outcome = train(
                training,
                on_evaluate=evaluate,
                checkpoints=False,
                should_stop=context.stop,
                progress=context.progress,
            )
        except TrainingDiverged:
            return None
    context.check_interrupt(outcome.interrupted)
    return reached[-1]
