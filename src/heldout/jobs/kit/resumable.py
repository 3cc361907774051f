"""One training that goes on from its newest checkpoint, or is found to have ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from heldout.core.errors import TrainingDiverged
from heldout.core.regularizer import Continue, Decision, Stop
from heldout.jobs.kit.checkpoints import last_step, load_ended
from heldout.jobs.kit.context import RunContext
from heldout.training.loop import Outcome, Schedule, Training, train

MAIN = "training"  # the stage of a run's own training


class Watcher(Protocol):
    """Measures a training as it goes and decides; its state lies in files."""

    @property
    def last_measured(self) -> int | None:
        """Step of the newest evaluation; None without one."""

    def restore(self, step: int) -> None:
        """Go back to the state right after the evaluation at ``step``, or to none with -1."""

    def evaluate(
        self, step: int, epoch: float, training_loss: float | None, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        """Measure and record the model as it is; the decision, and figures for the trackers."""

    def decide(self) -> Decision:
        """What follows from the evaluations so far."""

    @property
    def kept(self) -> str:
        """Where the best model so far lies, in a sentence; empty where none is kept."""


class Unwatched:
    """Measures nothing: the training runs to the end of its schedule."""

    last_measured = None
    kept = ""

    def restore(self, step: int) -> None:
        pass

    def evaluate(
        self, step: int, epoch: float, training_loss: float | None, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        return Continue(), {}

    def decide(self) -> Decision:
        return Continue()


def train_or_resume(
    training: Training,
    watcher: Watcher,
    context: RunContext,
    name: str,
    *,
    put_back: Callable[[], None] | None = None,
    before_first_step: Callable[[], None] = lambda: None,
    is_time_up: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train, or go on from the newest checkpoint; the model holds the last weights.

    ``name`` is that of the stage of the progress. Once ``is_time_up`` training ends. One that had
    ended already is brought back from its last checkpoint. Raises TrainingDiverged that says which
    training it was, and what there is of it.
    """
    folder, schedule = training.folder, training.schedule
    folder.mkdir(parents=True, exist_ok=True)
    step = last_step(folder)
    watcher.restore(-1 if step is None else step)
    if step is not None and (reason := _ended(watcher, schedule, step)):
        load_ended(training.model, folder / f"checkpoint-{step}", training.regularizers)
        return Outcome(step, step / schedule.steps_per_epoch, reason, False, 0.0)
    with context.progress.stage(name, schedule.max_steps), _telling_what_there_is(name, watcher):
        before_first_step()
        if step is None:
            watcher.evaluate(0, 0.0, None, 0.0)
        return train(
            training,
            on_evaluate=watcher.evaluate,
            put_back=put_back,
            resume=True,
            should_stop=context.stop,
            is_time_up=is_time_up,
            progress=context.progress,
        )


@contextmanager
def _telling_what_there_is(name: str, watcher: Watcher) -> Iterator[None]:
    try:
        yield
    except TrainingDiverged as error:
        which = "" if name == MAIN else f"{name}: "
        raise TrainingDiverged(f"{which}{error} {watcher.kept}") from None


def _ended(watcher: Watcher, schedule: Schedule, step: int) -> str:
    """Why training had ended at the checkpoint of ``step``; empty if it goes on from there."""
    if watcher.last_measured == step:
        decision = watcher.decide()
        if isinstance(decision, Stop):
            return decision.reason
    return "all planned epochs are done" if step >= schedule.max_steps else ""
