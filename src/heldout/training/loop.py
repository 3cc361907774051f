"""One training run: ``transformers.Trainer`` through ``attach``, with our own evaluation inside."""

import importlib.util
import inspect
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision, Regularizer, RollBack, Stop, overrides_hook
from heldout.training.attach import attach
from heldout.training.variants import AugmentedWindows
from heldout.training.windows import WindowDataset

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
        return cls(steps, max(1, round(steps * epochs)), min(recipe.eval.per_epoch, steps))

    def evaluates_at(self, step: int) -> bool:
        """At equal fractions of an epoch, whatever its length, and at the last step."""
        if step == self.max_steps:
            return True
        interval = self.steps_per_epoch / self.evaluations_per_epoch
        return step >= 1 and step == round(max(1, round(step / interval)) * interval)


@dataclass(frozen=True)
class Outcome:
    """Where training ended and why."""

    step: int
    epoch: float
    reason: str
    interrupted: bool
    seconds: float


def train(
    model: Any,
    windows: WindowDataset,
    recipe: Recipe,
    regularizers: Sequence[Regularizer],
    *,
    learning_rate: float,
    schedule: Schedule,
    folder: Path,
    on_evaluate: OnEvaluate,
    put_back: Callable[[], None] | None = None,
    checkpoints: bool = True,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Outcome:
    """Train ``model`` in place until the schedule's end, a Stop decision, or a request to stop.

    ``put_back`` loads the best weights so far into the model, for RollBack decisions.

    ``folder`` receives the Trainer's checkpoints (weights, optimizer, random states), from which
    ``resume`` goes on to the same numbers as an uninterrupted run. Raises TrainingDiverged.
    """
    progress = progress or Progress()
    checkpoint = get_last_checkpoint(str(folder)) if resume and folder.is_dir() else None
    on_gpu = torch.cuda.is_available()
    half = recipe.train.precision == "bfloat16" or (
        recipe.train.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported()
    )
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.train.micro_batch_size,
        gradient_accumulation_steps=recipe.accumulation_steps,
        max_steps=schedule.max_steps,
        learning_rate=learning_rate,
        **optimizer_arguments(recipe, regularizers),
        warmup_steps=min(recipe.train.warmup_steps, max(1, schedule.max_steps // 2)),
        weight_decay=0.0,
        adam_beta2=recipe.train.adam_beta2,
        max_grad_norm=recipe.train.max_grad_norm,
        seed=recipe.train.seed,
        bf16=half,
        use_cpu=not on_gpu,
        **_checkpointing(recipe.model.gradient_checkpointing),
        logging_strategy="no",
        save_strategy="no",
        save_total_limit=1,
        eval_strategy="no",
        report_to=list(recipe.train.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=on_gpu,
    )
    planned = Schedule.of(len(windows), recipe)
    control = _Control(schedule, on_evaluate, put_back, recipe, checkpoints, should_stop, progress)
    with _tensorboard_beside(folder):
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=windows,
            data_collator=windows.collate,
            callbacks=[control],
        )
    trainer.remove_callback(transformers.PrinterCallback)
    used = recipe.replace(train={"learning_rate": learning_rate})
    if isinstance(windows, AugmentedWindows):
        trainer.add_callback(_Variants(windows, planned.steps_per_epoch))
    attach(
        trainer,
        regularizers,
        recipe=used,
        logit_free=True,
        evaluates=True,
        # Strengths follow the planned epochs, also where folds or a search train for fewer.
        total_steps=planned.max_steps,
    )
    control.log = trainer.log
    start = time.monotonic()
    trainer.train(resume_from_checkpoint=checkpoint)
    model.eval()
    return Outcome(
        trainer.state.global_step,
        float(trainer.state.epoch or 0.0),
        control.reason or "all planned epochs are done",
        control.interrupted,
        time.monotonic() - start,
    )


class _Variants(TrainerCallback):
    """Makes the epoch's variants before its loader is asked; a resumed epoch gets its own again."""

    def __init__(self, windows: AugmentedWindows, steps_per_epoch: int):
        self.windows = windows
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        epoch = state.global_step // self.steps_per_epoch
        if epoch != self.windows.epoch:
            self.windows.set_epoch(epoch)


class _Control(TrainerCallback):
    """Evaluates on schedule, stops when told, and says when to write a checkpoint."""

    def __init__(self, schedule, on_evaluate, put_back, recipe, checkpoints, should_stop, progress):
        self.schedule = schedule
        self.put_back = put_back
        self.measure = on_evaluate  # the callback has a method on_evaluate of its own
        self.checkpoint_seconds = 60 * recipe.train.checkpoint_minutes
        self.checkpoints = checkpoints
        self.should_stop = should_stop
        self.progress = progress
        self.reason = ""
        self.interrupted = False
        self.last_checkpoint = time.monotonic()
        self.log: Callable[[dict[str, float]], None] = lambda figures: None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step:
            self.progress.advance(state.global_step)

    # Schedule-free keeps two forms of the weights: between steps they are the averaged ones, which
    # are measured and saved. Other optimizers have one form, and these calls do nothing.
    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        optimizer.train()

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        optimizer.eval()
        self.progress.advance()
        # Logging follows in this same step, with the mean training loss: evaluation waits for it.
        control.should_log = self.schedule.evaluates_at(state.global_step)
        if self.should_stop():
            self.interrupted = True
            self.reason = "interrupted"
            control.should_training_stop = True
            control.should_save = self.checkpoints
        return control

    def on_log(self, args, state, control, logs=None, optimizer=None, lr_scheduler=None, **kwargs):
        if "loss" not in (logs or {}):
            return control
        # The log has the first group's rate; of several the highest is the run's.
        first, *others = (group.get("initial_lr", 1.0) for group in optimizer.param_groups)
        rate = logs["learning_rate"] * max([first, *others]) / first
        decision, figures = self.measure(state.global_step, float(state.epoch), logs["loss"], rate)
        if figures:
            self.log(figures)  # holds no "loss", so this method returns at once
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
        due = time.monotonic() - self.last_checkpoint >= self.checkpoint_seconds
        if self.checkpoints and due and not control.should_training_stop:
            control.should_save = True
            self.last_checkpoint = time.monotonic()
        return control


def optimizer_arguments(recipe: Recipe, regularizers: Sequence[Regularizer]) -> dict[str, Any]:
    """The Trainer's arguments for the recipe's optimizer and its rate over time.

    Raises UserError for an optimizer that is not installed or does not go with a regularizer.
    """
    if recipe.train.optimizer == "schedule_free":
        if importlib.util.find_spec("schedulefree") is None:
            raise UserError(
                "train.optimizer=schedule_free needs a package that is not installed: run "
                "`pip install 'heldout[schedule_free]'`."
            )
        for regularizer in regularizers:
            if overrides_hook(regularizer, "after_step"):
                raise UserError(
                    f"{type(regularizer).__name__} works on the weights after a step, of which "
                    "train.optimizer=schedule_free keeps two forms: use train.optimizer=adamw."
                )
        return {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}  # warms up itself
    kinds = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
    return {"lr_scheduler_type": kinds[recipe.train.schedule]}


def _restart(optimizer: Any, lr_scheduler: Any, rate_factor: float) -> None:
    """Forget the moments, which belong to other weights, and scale the learning rate from here."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # inside accelerate's wrapper
    lr_scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] *= rate_factor
        group["initial_lr"] *= rate_factor
    lr_scheduler.base_lrs = [rate * rate_factor for rate in lr_scheduler.base_lrs]


@contextmanager
def _tensorboard_beside(folder: Path) -> Iterator[None]:
    """Event files outlive the checkpoints, unless the user has named a place for them."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder.parent / "tensorboard")
    try:
        yield
    finally:
        del os.environ[name]


def _checkpointing(wanted: bool) -> dict[str, Any]:
    """The Trainer's argument under its newer or its older name."""
    if not wanted:
        return {}
    newer = "activation_checkpointing" in inspect.signature(TrainingArguments).parameters
    return {"activation_checkpointing" if newer else "gradient_checkpointing": True}
