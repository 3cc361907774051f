"""The Trainer's arguments for a recipe."""

import importlib.util
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import TrainingArguments

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.accelerator import trained_precision, training_device
from heldout.training.trackers import PROJECT
from heldout.training.two_forms import refuse_two_forms

_KINDS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def trainer_arguments(
    recipe: Recipe,
    regularizers: Sequence[Regularizer],
    *,
    learning_rate: float,
    max_steps: int,
    folder: Path,
    tracker_run: str | None = None,
) -> TrainingArguments:
    """Logs, evaluations and checkpoints are asked for by a callback, never by the Trainer."""
    on_gpu = training_device() != "cpu"
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.train.micro_batch_size,
        gradient_accumulation_steps=recipe.accumulation_steps,
        max_steps=max_steps,
        learning_rate=learning_rate,
        **optimizer_arguments(recipe, regularizers),
        warmup_steps=warmup_steps(recipe, max_steps),
        weight_decay=0.0,
        adam_beta2=recipe.train.adam_beta2,
        max_grad_norm=recipe.train.max_grad_norm,
        seed=recipe.train.seed,
        bf16=trained_precision(recipe.train.precision) == "bfloat16",
        use_cpu=not on_gpu,
        **_checkpointing(recipe.model.gradient_checkpointing),
        logging_strategy="no",
        save_strategy="no",
        save_total_limit=1,
        eval_strategy="no",
        report_to=list(recipe.train.report_to) or "none",
        run_name=tracker_run,
        project=PROJECT,
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=training_device() == "cuda",
    )


def warmup_steps(recipe: Recipe, max_steps: int) -> int:
    """Over which the rate rises: at most half of the training."""
    return min(recipe.train.warmup_steps, max(1, max_steps // 2))


def rate_shares(recipe: Recipe, max_steps: int) -> np.ndarray:
    """The learning rate of each of ``max_steps`` steps, as a share of the recipe's."""
    warmup = warmup_steps(recipe, max_steps)
    if recipe.train.optimizer == "schedule_free":
        return np.minimum((np.arange(max_steps) + 1) / max(1, warmup), 1.0)
    scheduler = transformers.get_scheduler(
        _KINDS[recipe.train.schedule],
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0),
        num_warmup_steps=warmup,
        num_training_steps=max_steps,
    )
    return np.array([scheduler.lr_lambdas[0](step) for step in range(max_steps)])


def optimizer_arguments(recipe: Recipe, regularizers: Sequence[Regularizer]) -> dict[str, Any]:
    """The Trainer's arguments for the recipe's optimizer and its rate over time.

    Raises UserError for an optimizer that is not installed or does not go with a regularizer.
    """
    _refuse_launchers()
    if recipe.train.optimizer == "schedule_free":
        if importlib.util.find_spec("schedulefree") is None:
            raise UserError(
                "train.optimizer=schedule_free needs a package that is not installed: run "
                "`pip install 'heldout[schedule_free]'`."
            )
        refuse_two_forms("train.optimizer=schedule_free", regularizers)
        return {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}  # warms up itself
    return {"lr_scheduler_type": _KINDS[recipe.train.schedule]}


def _refuse_launchers() -> None:
    """UserError under torchrun and accelerate, whose processes would each write the same run."""
    asked = {
        "DeepSpeed": os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true",
        "FSDP": os.environ.get("ACCELERATE_USE_FSDP", "false") == "true",
        "torch.compile": os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no",
        "torchrun": int(os.environ.get("WORLD_SIZE", "1")) > 1,
    }
    if names := [name for name, is_asked in asked.items() if is_asked]:
        raise UserError(
            f"heldout trains in one process, without {names[0]}: start it without a launcher, or "
            "use heldout.attach with a Trainer of your own for DDP and FSDP2."
        )


def _checkpointing(wanted: bool) -> dict[str, Any]:
    """The Trainer's argument under its newer or its older name."""
    if not wanted:
        return {}
    newer = "activation_checkpointing" in inspect.signature(TrainingArguments).parameters
    return {"activation_checkpointing" if newer else "gradient_checkpointing": True}


@contextmanager
def same_config(model: Any) -> Iterator[None]:
    """The model's configuration is the same after this context as before.

    A Trainer switches ``use_cache`` off, which our passes do themselves: what is saved then depends
    on whether a Trainer was made, and generates slowly elsewhere.
    """
    before = dict(vars(model.config))
    try:
        yield
    finally:
        vars(model.config).clear()
        vars(model.config).update(before)
