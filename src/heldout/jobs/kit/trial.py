"""One training of a search: a fresh model, trained to its end and measured once."""

from collections.abc import Callable

from heldout.core.errors import TrainingDiverged
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision
from heldout.core.run import Run
from heldout.jobs.kit.augmentations import windows_of
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.prepare import prepare, regularizers_of
from heldout.jobs.kit.target import Target
from heldout.training.loop import Schedule, train
from heldout.training.steps import evaluation_weights


def try_training(
    run: Run,
    target: Target,
    recipe: Recipe,
    texts: Texts,
    name: str,
    *,
    learning_rate: float,
    steps_of: Callable[[Schedule], int],
    stop: Callable[[], bool],
    progress: Progress,
    check_interrupt: Callable[[bool], None],
) -> tuple[DocumentLosses | None, int]:
    """Losses of the validation rows after so many steps of the recipe's schedule, and the steps.

    None where training diverged. Nothing is kept: neither checkpoints nor logs.
    """
    loaded = target.load(recipe)
    model = prepare(loaded, recipe, is_scratch=bool(target.from_scratch))
    windows = windows_of(run, target, recipe, texts.train, loaded.tokenizer)
    steps = steps_of(Schedule.of(len(windows), recipe))
    regularizers = regularizers_of(recipe)
    reached: list[DocumentLosses] = []

    def evaluate(*_: float) -> tuple[Decision, dict[str, float]]:
        with evaluation_weights(model, regularizers):
            reached.append(losses_of(model, loaded.tokenizer, texts.validation, recipe))
        return Continue(), {}

    with progress.stage(name, steps):
        try:
            outcome = train(
                model,
                windows,
                recipe.replace(train={"report_to": ()}),
                regularizers,
                learning_rate=learning_rate,
                schedule=Schedule(steps, steps, 1),
                folder=run.path("checkpoints/search"),
                on_evaluate=evaluate,
                checkpoints=False,
                should_stop=stop,
                progress=progress,
            )
        except TrainingDiverged:
            return None, steps
    check_interrupt(outcome.interrupted)
    return reached[-1], steps
