"""One training run: ``transformers.Trainer`` through ``attach``, with our own evaluation inside."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision, Regularizer, RollBack, Stop
from heldout.lm.flat_trial import ASKED, EXACT, padding, reason_for_padding
from heldout.training.arguments import same_config, trainer_arguments
from heldout.training.attach import attach, numbers_alone
from heldout.training.length_order import MUCH_PADDING, LengthOrder, padded_share
from heldout.training.planned_decay import with_planned_decay
from heldout.training.trackers import TrackerRun, open_trackers
from heldout.training.variants import AugmentedWindows
from heldout.training.windows import WindowDataset

MOST_STEPS = 10_000_000  # of one training
TIME_IS_UP = "the minutes for it were used up"
UNREPORTED = "unreported"  # in a checkpoint whose training had no trackers
_SUM = "training_loss_since"

# (step, epoch, mean training loss since the last evaluation, learning rate)
# -> (decision, figures for the trackers)
OnEvaluate = Callable[[int, float, float, float], tuple[Decision, dict[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """How many optimizer steps there are, and at which of them checkpoints are measured."""

    steps_per_epoch: int
    max_steps: int
    evaluations_per_epoch: float

    @classmethod
    def of(cls, num_windows: int, recipe: Recipe, *, max_epochs: float | None = None) -> "Schedule":
        micro_batches = math.ceil(num_windows / recipe.train.micro_batch_size)
        steps = math.ceil(micro_batches / recipe.accumulation_steps)
        epochs = recipe.train.max_epochs if max_epochs is None else max_epochs
        if steps * epochs > MOST_STEPS:
            raise UserError(
                f"train.max_epochs: {epochs:g} epochs of {steps:,} steps are more than the "
                f"{MOST_STEPS:,} steps that can be planned: lower it."
            )
        return cls(steps, max(1, round(steps * epochs)), min(recipe.eval.per_epoch, steps))

    def evaluates_at(self, step: int) -> bool:
        """At equal fractions of an epoch, whatever its length, and at the last step."""
        if step == self.max_steps:
            return True
        interval = self.steps_per_epoch / self.evaluations_per_epoch
        return step >= 1 and step == round(max(1, round(step / interval)) * interval)

    @property
    def num_evaluations(self) -> int:
        """At most, without the one before training."""
        interval = self.steps_per_epoch / self.evaluations_per_epoch
        before_end = math.ceil(self.max_steps / interval) + 1
        while before_end and round(before_end * interval) >= self.max_steps:
            before_end -= 1
        return before_end + 1


@dataclass(frozen=True)
class Pause:
    """Training ends at ``step``, or earlier by a Stop, for another call to go on from there.

    ``keeps`` is given the step, after the evaluation, and says whether to write a checkpoint.
    """

    step: int
    keeps: Callable[[int], bool]


@dataclass(frozen=True)
class Outcome:
    """Where training ended and why."""

    step: int
    epoch: float
    reason: str
    interrupted: bool
    seconds: float


@dataclass(frozen=True)
class Training:
    """What is trained and how, and the folder of its checkpoints."""

    model: Any
    windows: WindowDataset
    recipe: Recipe
    regularizers: Sequence[Regularizer]
    learning_rate: float
    schedule: Schedule
    folder: Path


def train(
    training: Training,
    *,
    on_evaluate: OnEvaluate,
    put_back: Callable[[], None] | None = None,
    checkpoints: bool = True,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    is_time_up: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    pause: Pause | None = None,
) -> Outcome:
    """Train the model in place until the schedule's end, a Stop decision, or a request to stop.

    Once ``is_time_up`` the model is measured and training ends. ``put_back`` loads the best weights
    so far into the model, for RollBack decisions.

    The folder receives the Trainer's checkpoints (weights, optimizer, random states), from which
    ``resume`` goes on to the same numbers as an uninterrupted run. Raises TrainingDiverged.
    """
    folder, schedule = training.folder, training.schedule
    checkpoint = get_last_checkpoint(str(folder)) if resume and folder.is_dir() else None
    control = _Control(
        schedule,
        on_evaluate,
        put_back,
        60 * training.recipe.train.checkpoint_minutes if checkpoints else None,
        should_stop,
        is_time_up,
        progress or Progress(),
        pause,
    )
    if checkpoint and (Path(checkpoint) / UNREPORTED).exists():
        control.unreported = Path(checkpoint) / UNREPORTED
    with (
        padding(training.recipe.train.padding),
        open_trackers(training.recipe.train.report_to, folder.parent) as tracked,
        numbers_alone(checkpoint),
    ):
        trainer = _trainer(training, control, tracked)
        start = time.monotonic()
        trainer.train(resume_from_checkpoint=checkpoint)
    training.model.eval()
    return Outcome(
        trainer.state.global_step,
        float(trainer.state.epoch or 0.0),
        control.reason or "all planned epochs are done",
        control.interrupted,
        time.monotonic() - start,
    )


class _Trainer(Trainer):
    """A Trainer that takes rows in an order of ours, where there is one."""

    order: LengthOrder | None = None

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return self.order or super()._get_train_sampler(*args, **kwargs)


def _order(training: Training) -> LengthOrder | None:
    """Rows of like length together, where the model needs padding and there would be much."""
    windows, recipe = training.windows, training.recipe
    if isinstance(windows, AugmentedWindows) or not goes_by_length(training.model, windows, recipe):
        return None
    return LengthOrder(windows.lengths, recipe.train.micro_batch_size, recipe.train.seed)


def goes_by_length(model: Any, windows: WindowDataset, recipe: Recipe) -> bool:
    """Whether rows of like length are trained together, since padding would be a large share."""
    if reason_for_padding(model) in (EXACT, ASKED):
        return False
    return padded_share(windows.lengths, recipe.train.micro_batch_size) > MUCH_PADDING


def _trainer(training: Training, control: "_Control", tracked: TrackerRun | None) -> Trainer:
    """The Trainer with the regularizers attached."""
    recipe, windows = training.recipe, training.windows
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    arguments = trainer_arguments(
        recipe,
        training.regularizers,
        learning_rate=training.learning_rate,
        max_steps=training.schedule.max_steps,
        folder=training.folder,
        tracker_run=tracked.name if tracked else None,
    )
    planned = Schedule.of(len(windows), recipe)
    made: dict[str, Any] = {"train_dataset": windows, "data_collator": windows.collate}
    with same_config(training.model):
        trainer = _Trainer(training.model, arguments, callbacks=[control], **made)
    trainer.order = _order(training)
    trainer.remove_callback(transformers.PrinterCallback)
    if isinstance(windows, AugmentedWindows):
        trainer.add_callback(_Variants(windows, planned.steps_per_epoch))
    regularizers = with_planned_decay(
        training.regularizers, recipe, training.learning_rate, planned.max_steps
    )
    attach(
        trainer,
        regularizers,
        recipe=recipe.replace(train={"learning_rate": training.learning_rate}),
        logit_free=True,
        evaluates=True,
        # Strengths follow the planned epochs, also where folds or a search train for fewer.
        total_steps=planned.max_steps,
    )
    control.trainer = trainer
    return trainer


class _Variants(TrainerCallback):
    """Makes the epoch's variants before its loader is asked; a resumed epoch gets its own again."""

    def __init__(self, windows: AugmentedWindows, steps_per_epoch: int):
        self.windows = windows
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epoch = state.global_step // self.steps_per_epoch
        if epoch != self.windows.epoch:
            self.windows.set_epoch(epoch)


class _Control(TrainerCallback):
    """Evaluates on schedule, stops when told, and says when to write a checkpoint."""

    def __init__(
        self,
        schedule: Schedule,
        on_evaluate: OnEvaluate,
        put_back: Callable[[], None] | None,
        checkpoint_seconds: float | None,  # between checkpoints; None: there are none
        should_stop: Callable[[], bool],
        is_time_up: Callable[[], bool],
        progress: Progress,
        pause: Pause | None,
    ):
        self.schedule = schedule
        self.put_back = put_back
        self.measure = on_evaluate  # the callback has a method on_evaluate of its own
        self.checkpoint_seconds = checkpoint_seconds
        self.should_stop = should_stop
        self.is_time_up = is_time_up
        self.progress = progress
        self.pause = pause
        self.reason = ""
        self.interrupted = False
        self.last_checkpoint = time.monotonic()
        self.trainer: Any = None
        self.unreported: Path | None = None  # marks a checkpoint of which no tracker has heard

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.global_step:
            return
        self.progress.advance(state.global_step)
        if state.log_history and _SUM in state.log_history[-1]:
            kept = state.log_history.pop()
            self.trainer._tr_loss += kept[_SUM]
            self.trainer._globalstep_last_logged = kept["since"]
        if self.unreported is not None:
            self._report_again(args, state, control)
            self.unreported.unlink()

    def _report_again(self, args: Any, state: TrainerState, control: TrainerControl) -> None:
        """Tell the trackers what was logged before they were there."""
        for entry in state.log_history:
            then = replace(state, global_step=int(entry["step"]), epoch=entry["epoch"])
            logs = {key: value for key, value in entry.items() if key != "step"}
            for callback in self.trainer.callback_handler.callbacks:
                if callback is not self:
                    callback.on_log(args, then, control, logs=logs)

    # Schedule-free keeps two forms of the weights: between steps they are the averaged ones, which
    # are measured and saved. Other optimizers have one form, and these calls do nothing.
    def on_step_begin(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        optimizer.train()

    def on_step_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> TrainerControl:
        optimizer.eval()
        self.progress.advance()
        # Logging follows in this same step, with the mean training loss: evaluation waits for it.
        control.should_log = self.schedule.evaluates_at(state.global_step)
        if self.should_stop():
            self.interrupted = True
            self.reason = "interrupted"
            control.should_training_stop = True
            control.should_save = self.checkpoint_seconds is not None
        elif self.is_time_up():
            control.should_log = control.should_training_stop = True
            self.reason = TIME_IS_UP
        elif self._pauses_at(state.global_step) and not control.should_log:
            self._end_for_now(state, control)
        if control.should_save and not control.should_log:
            self._keep_sum(state)
        return control

    def _pauses_at(self, step: int) -> bool:
        return self.pause is not None and step == self.pause.step

    def _end_for_now(self, state: TrainerState, control: TrainerControl) -> None:
        assert self.pause is not None
        self.reason = self.reason or "paused"
        control.should_training_stop = True
        control.should_save = self.pause.keeps(state.global_step)

    def _keep_sum(self, state: TrainerState) -> None:
        """The training loss since the last log, for a checkpoint in between two of them."""
        since = self.trainer._globalstep_last_logged
        kept = {"step": state.global_step, "since": since, _SUM: self.trainer._tr_loss.item()}
        state.log_history.append(kept)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> TrainerControl:
        if "loss" not in (logs or {}):
            return control
        # The log has the first group's rate; of several the highest is the run's.
        first, *others = (group.get("initial_lr", 1.0) for group in optimizer.param_groups)
        rate = logs["learning_rate"] * max([first, *others]) / first
        step, loss = state.global_step, logs["loss"]
        try:
            decision, figures = self.measure(step, float(state.epoch), loss, rate)
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"After step {step}: {error} Lower train.learning_rate."
            ) from None
        if figures:
            self.trainer.log(figures)  # holds no "loss", so this method returns at once
        if isinstance(decision, Stop):
            self.reason = decision.reason
            control.should_training_stop = True
        elif isinstance(decision, RollBack):
            assert self.put_back is not None, "checked by the plan: there is a best checkpoint"
            self.put_back()
            _restart(optimizer, lr_scheduler, decision.rate_factor)
            self.progress.note(f"rolled back: {decision.reason}")
        else:
            assert isinstance(decision, Continue), decision
        is_end = control.should_training_stop or self._pauses_at(state.global_step)
        if self.pause and is_end and not self.interrupted:
            self._end_for_now(state, control)
        if self._checkpoint_is_due() and not control.should_training_stop:
            control.should_save = True
            self.last_checkpoint = time.monotonic()
        return control

    def _checkpoint_is_due(self) -> bool:
        if self.checkpoint_seconds is None:
            return False
        return time.monotonic() - self.last_checkpoint >= self.checkpoint_seconds


def _restart(optimizer: Any, lr_scheduler: Any, rate_factor: float) -> None:
    """Forget the moments, which belong to other weights, and scale the learning rate from here."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # inside accelerate's wrapper
    lr_scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] *= rate_factor
        group["initial_lr"] *= rate_factor
    lr_scheduler.base_lrs = [rate * rate_factor for rate in lr_scheduler.base_lrs]
