"""Attach regularizers to any ``transformers.Trainer``: the only file that knows its internals.

The order of one optimizer step under ``attach``, with what the Trainer does in brackets::

    [fetch the window of micro-batches, count its scored tokens]
    before_step                                             on_step_begin
    for each micro-batch:
        forward -> chunks: cross-entropy + token_loss terms  compute_loss
        + extra_loss, divided as its type says
        [backward]                                           training_step
    [clip, optimizer step]
    after_step                                               on_optimizer_step
    [schedule, zero gradients, log, save]
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import PerStep, Regularizer, TokenSum, moments_used
from heldout.lm.head import scored_logits, scored_loss

STATE_FILE = "heldout_state.pt"


def attach(
    trainer: Trainer,
    regularizers: Sequence[Regularizer],
    *,
    recipe: Recipe | None = None,
    logit_free: bool = False,
    evaluates: bool = False,
) -> Trainer:
    """Make ``trainer`` train with ``regularizers``, in their order; returns the same trainer.

    With no regularizers and ``logit_free=False`` the trainer computes what it computed before, bit
    for bit. ``logit_free`` replaces its loss by the chunked one that never holds the full logits
    (equal up to rounding); it is implied by any regularizer that adds to the loss. Evaluation by
    the trainer itself stays untouched: no penalty leaks into ``eval_loss``. ``evaluates`` says that
    the caller calls ``decide`` and ``evaluation_weights``, as `heldout fit` does.

    Raises UserError, before the first step, for set-ups that are not supported and for
    regularizers that would silently do nothing.
    """
    if isinstance(trainer, _Attached):
        raise UserError("attach(trainer, ...): regularizers are attached already; pass them all.")
    duplicates = {type(r).__name__ for r in regularizers if _count(regularizers, r) > 1}
    if duplicates:
        raise UserError(f"attach(trainer, ...): {', '.join(sorted(duplicates))} is given twice.")
    if trainer.is_deepspeed_enabled:
        raise UserError(
            "attach(trainer, ...) does not support DeepSpeed, which steps inside backward(): use "
            "DDP or FSDP2 through accelerate."
        )
    if trainer.args.n_gpu > 1:
        raise UserError(
            "attach(trainer, ...) does not support nn.DataParallel over several GPUs in one "
            "process: start it with torchrun, or set CUDA_VISIBLE_DEVICES to one GPU."
        )
    for regularizer in regularizers:
        regularizer.check(trainer.model, recipe)
        for moment in ("decide", "evaluation_weights"):
            if moments_used(regularizer, moment) and not evaluates:
                raise UserError(
                    f"{type(regularizer).__name__} works on held-out losses, which only "
                    "heldout.fit measures: use that, or leave it out of attach(trainer, ...)."
                )

    own_loss = logit_free or any(
        moments_used(r, "token_loss") or moments_used(r, "extra_loss") for r in regularizers
    )
    if own_loss and trainer.label_smoother is not None:
        raise UserError(
            "TrainingArguments(label_smoothing_factor=...) is set: use LabelSmoothing(amount=...) "
            "in its place, so that evaluation stays free of smoothing."
        )
    if own_loss and trainer.compute_loss_func is not None:
        raise UserError("compute_loss_func is set: a regularizer that adds to the loss needs it.")
    trainer.__class__ = type(type(trainer).__name__, (_Attached, type(trainer)), {})
    assert isinstance(trainer, _Attached)
    trainer._heldout_regularizers = tuple(regularizers)
    trainer._heldout_own_loss = own_loss
    if own_loss:
        # The window's scored tokens are counted, and the loss is not divided a second time.
        trainer.model_accepts_loss_kwargs = True
        trainer._loss_shifts_labels = True
    for regularizer in regularizers:
        regularizer.prepare(trainer.model)
    trainer.add_callback(_Moments(trainer))
    return trainer


def total_cost(regularizers: Sequence[Regularizer]) -> str:
    """What a step costs with all of them, in words: forwards, backwards, copies of parameters."""
    costs = [regularizer.cost for regularizer in regularizers]
    forwards = 1 + sum(cost.forwards for cost in costs)
    backwards = 1 + sum(cost.backwards for cost in costs)
    copies = sum(cost.parameters for cost in costs)
    names = " + ".join(type(regularizer).__name__ for regularizer in regularizers) or "plain"
    words = f"{names}: {_plural(forwards, 'forward')}, {_plural(backwards, 'backward')} per step"
    return f"{words}, +{copies:g} copies of the trained parameters"


if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class _Attached(_Base):
    """Mixed in before the trainer's own class."""

    _heldout_regularizers: tuple[Regularizer, ...]
    _heldout_own_loss: bool

    def train(self, *args, **kwargs):
        resume = args[0] if args else kwargs.get("resume_from_checkpoint")
        if resume is True:
            resume = get_last_checkpoint(self.args.output_dir)
        with ExitStack() as stack:
            for regularizer in self._heldout_regularizers:
                stack.enter_context(regularizer.attached(self.model))
            if resume:
                self._heldout_load_state(Path(resume))
            return super().train(*args, **kwargs)

    def create_optimizer(self, *args, **kwargs):
        optimizer = super().create_optimizer(*args, **kwargs)
        users = [r for r in self._heldout_regularizers if moments_used(r, "parameter_options")]
        if users:
            _regroup(optimizer, self.model, users)
        return optimizer

    def training_step(self, model, inputs, *args, **kwargs):
        rows = inputs.pop("row_index", None)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss):
            where = f", rows {sorted(set(rows.tolist()))}" if rows is not None else ""
            raise TrainingDiverged(
                f"The training loss is not a finite number at step {self.state.global_step + 1}"
                f"{where}: lower train.learning_rate, or look at these rows."
            )
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None, **kwargs):
        if not (self._heldout_own_loss and model.training and "labels" in inputs):
            return super().compute_loss(
                model,
                inputs,
                return_outputs=return_outputs,
                num_items_in_batch=num_items_in_batch,
                **kwargs,
            )
        assert not return_outputs, "the chunked loss holds no outputs"
        terms = [r.token_loss for r in self._heldout_regularizers if moments_used(r, "token_loss")]
        task_sum, num_tokens = scored_loss(model, inputs, token_loss=terms)
        if num_items_in_batch is None:
            num_items_in_batch = num_tokens
        token_sum = task_sum
        per_step = torch.zeros((), device=task_sum.device)
        for regularizer in self._heldout_regularizers:
            if moments_used(regularizer, "extra_loss"):
                extra = regularizer.extra_loss(lambda batch: scored_logits(model, batch), inputs)
                if isinstance(extra, TokenSum):
                    token_sum = token_sum + extra.value
                else:
                    assert isinstance(extra, PerStep), f"{type(regularizer).__name__}: {extra!r}"
                    per_step = per_step + extra.value
        loss = token_sum / num_items_in_batch
        if self.args.average_tokens_across_devices:
            # Gradients are averaged over processes, while the tokens were counted over all.
            loss = loss * self.accelerator.num_processes
        return loss + per_step / self.current_gradient_accumulation_steps

    def _save_checkpoint(self, *args, **kwargs):
        states = [regularizer.state_dict() for regularizer in self._heldout_regularizers]
        if any(states) and self.args.should_save:
            # First, because the Trainer's own last file marks the checkpoint as whole.
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(states, folder / STATE_FILE)
        super()._save_checkpoint(*args, **kwargs)

    def _heldout_load_state(self, checkpoint: Path) -> None:
        path = checkpoint / STATE_FILE
        if path.exists():
            states = torch.load(path, weights_only=True)
            for regularizer, state in zip(self._heldout_regularizers, states, strict=True):
                regularizer.load_state_dict(state)


class _Moments(TrainerCallback):
    """The moments that callbacks can reach."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        for regularizer in self.trainer._heldout_regularizers:
            regularizer.before_step(self.trainer.model, state.global_step)

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        users = [r for r in self.trainer._heldout_regularizers if moments_used(r, "after_step")]
        if users:
            by_identity = {
                id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]
            }
            model = self.trainer.model
            rates = {
                name: by_identity[id(p)]
                for name, p in model.named_parameters()
                if id(p) in by_identity
            }
            for regularizer in users:
                regularizer.after_step(model, state.global_step, rates)


def _regroup(optimizer, model, regularizers: Sequence[Regularizer]) -> None:
    """Split the optimizer's fresh groups so that parameters with equal options share one."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups: dict[tuple, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        shared = {key: value for key, value in group.items() if key != "params"}
        for parameter in group["params"]:
            options = {"lr": shared["lr"], "weight_decay": shared.get("weight_decay", 0.0)}
            for regularizer in regularizers:
                options = regularizer.parameter_options(names[id(parameter)], parameter, options)
            key = tuple(sorted(options.items()))
            groups.setdefault(key, {**shared, **options, "params": []})["params"].append(parameter)
    optimizer.param_groups[:] = list(groups.values())


def _count(regularizers: Sequence[Regularizer], one: Regularizer) -> int:
    return sum(type(other) is type(one) for other in regularizers)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
