"""Attach regularizers to any ``transformers.Trainer``: the only file that knows its internals.

The order of one optimizer step under ``attach``, with what the Trainer does in brackets::

    edit_batch                                              training collator
    [fetch the window of micro-batches, count its scored tokens]
    before_step                                             on_step_begin
    around_gradient:                                        training_step of the last micro-batch
        for each micro-batch:
            forward -> chunks: cross-entropy + token_loss   compute_loss
            + extra_loss, divided as its type says
            [backward]                                      training_step
    [clip, optimizer step]
    after_step                                              on_optimizer_step
    [schedule, zero gradients, log, save]
"""

import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from heldout.core.environment import versions_outside
from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer, overrides_hook
from heldout.lm.dropout_places import unread_settings, unread_words
from heldout.lm.head import unwrapped
from heldout.lm.layout import padded_layout, set_layout
from heldout.lm.logit_path import held_logits
from heldout.lm.passes import embeddings_offset
from heldout.lm.tokenize import ORIGIN
from heldout.training.cost import total_cost
from heldout.training.decay import set_decay
from heldout.training.diagnose_callback import let_trackers_hear
from heldout.training.steps import Steps
from heldout.training.supported import refuse_unsupported
from heldout.training.two_forms import keeps_two_forms, measured_form, refuse_two_forms

STATE_FILE = "heldout_state.pt"

_OF_CUT_FILES = (EOFError, SafetensorError, json.JSONDecodeError)
_MOST_NAMED = 16  # rows of a batch whose loss is no number


def attach(
    trainer: Trainer,
    regularizers: Sequence[Regularizer],
    *,
    recipe: Recipe | None = None,
    logit_free: bool = False,
    evaluates: bool = False,
    total_steps: int = 0,
) -> Trainer:
    """Make ``trainer`` train with ``regularizers``, in their order; returns the same trainer.

    With no regularizers and ``logit_free=False`` the trainer computes what it computed before, bit
    for bit. ``logit_free`` replaces its loss by the chunked one that never holds the full logits
    (equal up to rounding); it is implied by any regularizer that adds to the loss. Evaluation by
    the trainer itself is free of penalties; ``evaluate()`` and ``save_model()`` see the weights
    that averaging regularizers put in. ``evaluates`` says that the caller calls ``decide``,
    ``finish`` and ``evaluation_weights`` itself, as `heldout fit` does. Schedules of strengths run
    over ``total_steps``, by default those of the Trainer.

    Raises UserError, before the first step, for setups that are not supported and for
    regularizers that would silently do nothing.
    """
    if isinstance(trainer, _Attached):
        raise UserError("attach(trainer, ...): regularizers are attached already; pass them all.")
    refuse_unsupported(trainer, regularizers, logit_free=logit_free, evaluates=evaluates)
    model: Any = trainer.model
    steps = Steps(
        model,
        regularizers,
        total_steps=UNKNOWN,
        recipe=recipe,
        evaluates=evaluates,
        own_loss=logit_free,
        seed=trainer.args.seed,
    )
    own_loss = logit_free or steps.adds_to_loss
    trainer.__class__ = type(type(trainer).__name__, (_Attached, type(trainer)), {})
    assert isinstance(trainer, _Attached)
    trainer._heldout = steps
    trainer._heldout_own_loss = own_loss
    trainer._heldout_evaluates = evaluates
    trainer._heldout_total_steps = total_steps
    trainer._heldout_regrouped = None
    trainer._heldout_window = []
    trainer._heldout_factor = 1.0
    if own_loss:
        # The window's scored tokens are counted, and the loss is not divided a second time.
        trainer.model_accepts_loss_kwargs = True
        trainer._loss_shifts_labels = True
    trainer.add_callback(_Hooks(trainer))
    logger = logging.getLogger("heldout")
    if outside := versions_outside():
        logger.warning(
            f"Installed outside of the versions that heldout allows: {', '.join(outside)}. Should "
            "the training fail or its losses look wrong, install one of those first."
        )
    logger.info(total_cost(regularizers, model))
    if unread := unread_settings(unwrapped(model)):
        logger.warning(unread_words(unread))
    if own_loss and (words := held_logits(model)):
        logger.info(words)
    return trainer


UNKNOWN = -1  # until the Trainer has counted its steps


if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class _Attached(_Base):
    """Mixed in before the trainer's own class."""

    _heldout: Steps
    _heldout_own_loss: bool
    _heldout_evaluates: bool
    _heldout_total_steps: int
    _heldout_regrouped: Any
    _heldout_window: list[dict[str, Any]]
    _heldout_factor: float
    _metrics: dict[str, Any]  # of TRL's trainers

    def train(self, *args: Any, **kwargs: Any) -> Any:
        resume = args[0] if args else kwargs.get("resume_from_checkpoint")
        if resume is True:
            resume = get_last_checkpoint(self.args.output_dir)
        let_trackers_hear(self)
        with self._heldout.attached():
            if resume:
                self._heldout.load_state_dict(saved_states(Path(resume)))
            return super().train(*args, **kwargs)

    def get_train_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        users = [r for r in self._heldout.regularizers if overrides_hook(r, "edit_batch")]
        if not users:
            return super().get_train_dataloader(*args, **kwargs)
        own = self.data_collator
        self.data_collator = _Edited(own, users)
        try:
            return super().get_train_dataloader(*args, **kwargs)
        finally:
            self.data_collator = own

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        if optimizer is not self._heldout_regrouped:  # it is asked for again before training
            optimizer.param_groups[:] = self._heldout.regrouped(optimizer.param_groups)
            if keeps_two_forms(optimizer):
                refuse_two_forms(type(optimizer).__name__, self._heldout.regularizers)
            if self._heldout.sets_decay:
                set_decay(optimizer)
            self._heldout_regrouped = optimizer
        return optimizer

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None, **kwargs: Any
    ) -> torch.Tensor:
        with self._heldout_tokens_counted(inputs):
            return self._heldout_training_step(model, inputs, num_items_in_batch, **kwargs)

    @contextmanager
    def _heldout_tokens_counted(self, inputs: Any) -> Iterator[None]:
        """TRL counts trained tokens in its loss, which may be called never, or more than once."""
        counted = getattr(self, "_total_train_tokens", None)
        if counted is None or not (self._heldout_own_loss or self._heldout.around):
            yield
            return
        if "attention_mask" in inputs:
            num_tokens = inputs["attention_mask"].sum()
        else:
            num_tokens = torch.tensor(inputs["input_ids"].numel())
        num_tokens = self.accelerator.gather_for_metrics(num_tokens.to(self.args.device)).sum()
        yield
        self._total_train_tokens = counted + int(num_tokens)
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]

    def _heldout_training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any, **kwargs: Any
    ) -> torch.Tensor:
        if not self._heldout.around:
            return self._heldout_micro_batch(model, inputs, num_items_in_batch, **kwargs)
        inputs = self._prepare_inputs(inputs)
        self._heldout_window.append(inputs)
        device = self.args.device
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=device)
        window, self._heldout_window = self._heldout_window, []

        def run(index: int, factor: float, offset: torch.Tensor | None) -> torch.Tensor:
            is_last = index == len(window) - 1
            with ExitStack() as stack:
                stack.enter_context(nullcontext() if is_last else self.accelerator.no_sync(model))
                if offset is not None:
                    stack.enter_context(embeddings_offset(model, offset))
                self._heldout_factor = factor
                try:
                    return self._heldout_micro_batch(
                        model, dict(window[index]), num_items_in_batch, **kwargs
                    )
                finally:
                    self._heldout_factor = 1.0

        return self._heldout.around_window(window, run, device)

    def _heldout_micro_batch(
        self, model: Any, inputs: Any, num_items_in_batch: Any, **kwargs: Any
    ) -> torch.Tensor:
        # A list where the trainer makes its batches from prompts.
        rows = inputs.get("row_index") if not isinstance(inputs, list) else None
        loss = super().training_step(model, inputs, num_items_in_batch, **kwargs)
        if not torch.isfinite(loss):
            named = [] if rows is None else sorted(set(rows.tolist()))
            more = ", ..." if len(named) > _MOST_NAMED else ""
            where = f", rows [{str(named[:_MOST_NAMED])[1:-1]}{more}]" if named else ""
            raise TrainingDiverged(
                f"The training loss is not a finite number at step {self.state.global_step + 1}"
                f"{where}: lower train.learning_rate, or look at these rows."
            )
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not (self._heldout_own_loss and model.training and "labels" in inputs):
            with self._heldout_noise(model, inputs):
                found: Any = super().compute_loss(
                    model,
                    inputs,
                    return_outputs=return_outputs,
                    num_items_in_batch=num_items_in_batch,
                    **kwargs,
                )
            if self._heldout_factor == 1.0:
                return found
            assert not return_outputs, "a factor belongs to training"
            return found * self._heldout_factor
        assert not return_outputs, "the chunked loss holds no outputs"
        loss = self._heldout.loss(
            model,
            inputs,
            num_tokens=num_items_in_batch,
            num_micro_batches=self.current_gradient_accumulation_steps,
            num_processes=(
                self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            ),
        )
        return loss * self._heldout_factor

    @contextmanager
    def _heldout_noise(self, model: Any, inputs: Any) -> Iterator[None]:
        """Around the trainer's own loss, which knows nothing of where rows come from."""
        is_noisy = model.training and self._heldout.drops_by_row
        if is_noisy and "input_ids" in inputs:
            set_layout(padded_layout(inputs))
        for name in ORIGIN:
            inputs.pop(name, None)
        with self._heldout.noise(model, inputs) if is_noisy else nullcontext():
            yield

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        if self._heldout_evaluates:
            return super().evaluate(*args, **kwargs)
        with self._heldout.evaluation_weights():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        if self._heldout_evaluates:
            return super().predict(*args, **kwargs)
        with self._heldout.evaluation_weights():
            return super().predict(*args, **kwargs)

    def save_model(self, output_dir: Any = None, _internal_call: bool = False) -> None:
        if self._heldout_evaluates or _internal_call:  # a checkpoint to resume from
            return super().save_model(output_dir, _internal_call)
        with measured_form(self.optimizer), self._heldout.evaluation_weights():
            return super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        states = self._heldout.state_dict()
        if states and self.args.should_save:
            # First, because the Trainer's own last file marks the checkpoint as whole.
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(states, folder / STATE_FILE)
        super()._save_checkpoint(*args, **kwargs)


def saved_states(checkpoint: Path) -> dict[str, Any]:
    """The states of regularizers in a checkpoint; empty where none had one."""
    path = checkpoint / STATE_FILE
    with numbers_alone(checkpoint):
        return torch.load(path, weights_only=True) if path.exists() else {}


@contextmanager
def numbers_alone(checkpoint: Path | str | None) -> Iterator[None]:
    """In the block, UserError for a checkpoint whose files hold more than numbers, or are cut.

    Neither torch nor the Trainer runs what such a file holds.
    """
    try:
        yield
    except (pickle.UnpicklingError, *_OF_CUT_FILES, RuntimeError) as error:
        is_cut = isinstance(error, _OF_CUT_FILES) or "PytorchStreamReader" in str(error)
        if checkpoint is None or not (is_cut or isinstance(error, pickle.UnpicklingError)):
            raise
        if is_cut:
            raise UserError(
                f"A file in {checkpoint} was cut short: put it back as it was, or remove this "
                "folder, and the training begins anew."
            ) from None
        raise UserError(
            f"A file in {checkpoint} holds more than numbers, and was not run: put it back as it "
            "was, or remove this folder, and the training begins anew."
        ) from None


class _Edited:
    """A collator whose batches are edited before the Trainer counts their tokens."""

    def __init__(self, collate: Any, regularizers: Sequence[Regularizer]):
        self.collate = collate
        self.regularizers = regularizers

    def __call__(self, items: Any) -> Any:
        batch = self.collate(items)
        for regularizer in self.regularizers:
            batch = regularizer.edit_batch(batch)
        return batch


class _Hooks(TrainerCallback):
    """The hooks that callbacks can reach."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = self.trainer._heldout
        steps.total_steps = self.trainer._heldout_total_steps or state.max_steps
        self.trainer._heldout_window = []
        steps.begin(state.global_step)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self.trainer._heldout.after_step(optimizer)
