"""One plan trained by transformers' Trainer or TRL's SFTTrainer, and the folder that it leaves."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from texts import entry_of
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from heldout.core.losses import DocumentLosses
from heldout.core.row import Row
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.target import Target
from heldout.lm.tokenize import Window, collate, tokenize_row
from training import (
    BATCH,
    FULL_RATE,
    LORA_RATE,
    MODEL,
    Plan,
    recipe_of,
    rows_of,
    spoil,
    windows_of,
)

RANK, ALPHA = 16, 32
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Setup:
    """How a run is made, and what it leaves."""

    trainer: str  # trainer or trl
    lora: bool
    groups: bool  # whether rows name theirs
    kept: str  # last; checkpoints, of each epoch; best, loaded at the end
    evaluates_first: bool  # before the first step


@dataclass(frozen=True)
class TrainerRun:
    """Held-out losses of what was saved, the base model's, and the epoch of the lowest loss."""

    heldout: DocumentLosses
    base_nll: float
    best_epoch: float


def trained(plan: Plan, setup: Setup, folder: Path | None, most_steps: int = -1) -> TrainerRun:
    """Train; the folder gets ``out/``, as the trainer writes it, and the rows as files.

    ``folder`` None: nothing is kept, as for a repair. ``most_steps`` ends a training early.
    """
    plan = replace(plan, by_rows=not setup.groups)
    recipe = recipe_of(plan)
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = loaded.model, loaded.tokenizer
    parts = rows_of(plan)
    base_nll = losses_of(model, tokenizer, parts["heldout"], recipe).nats_per_token
    if setup.lora:
        torch.manual_seed(plan.seed)  # an adapter begins at random
        targets = LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM",
            base_model_name_or_path=MODEL,
        )  # fmt: skip
        model = get_peft_model(model, targets)
        model.peft_config["default"].base_model_name_or_path = MODEL
    windows = windows_of(plan, parts, tokenizer)
    validation = [
        window
        for row in parts["validation"]
        for window in tokenize_row(row, tokenizer, recipe.data.max_length).windows
    ]
    with TemporaryDirectory() as place:
        out = Path(place) if folder is None else folder / "out"
        trainer = trainer_of(plan, setup, model, tokenizer, windows, validation, out, most_steps)
        trainer.train()
        losses = [
            (entry["eval_loss"], entry["epoch"])
            for entry in trainer.state.log_history
            if "eval_loss" in entry
        ]
        model.eval()
        heldout = losses_of(model, tokenizer, parts["heldout"], recipe)
        if folder is not None:
            trainer.save_model(str(out))
            trainer.save_state()
            tokenizer.save_pretrained(out)
            spoil(plan, out)
            for part in ("train", "heldout"):
                write_rows(folder / f"{part}.jsonl", parts[part], setup.groups)
    return TrainerRun(heldout, base_nll, min(losses)[1])


def write_rows(path: Path, rows: list[Row], with_groups: bool) -> None:
    entries = [entry_of(row) for row in rows]
    if not with_groups:
        entries = [{k: v for k, v in entry.items() if k != "group"} for entry in entries]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def trainer_of(
    plan: Plan,
    setup: Setup,
    model: Any,
    tokenizer: Any,
    windows: list[Window],
    validation: list[Window],
    out: Path,
    most_steps: int,
) -> Trainer:
    """Warm-up over a tenth of the steps and a linear fall, as in the other planted set."""
    steps = max(1, round(math.ceil(len(windows) / BATCH) * plan.epochs))
    often = "epoch" if plan.epochs > 1 else "steps"
    saves = "no" if setup.kept == "last" else often
    shared: dict[str, Any] = {
        "output_dir": str(out),
        "learning_rate": plan.rate * (LORA_RATE / FULL_RATE if setup.lora else 1.0),
        "max_steps": min(steps, most_steps) if most_steps > 0 else steps,
        "warmup_steps": max(1, round(0.1 * steps)),
        "weight_decay": WEIGHT_DECAY,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "eval_strategy": often,
        "save_strategy": saves,
        "eval_steps": max(1, steps // 4),
        "save_steps": max(1, steps // 4),
        "save_only_model": True,
        "load_best_model_at_end": setup.kept == "best",
        "eval_on_start": setup.evaluates_first,
        "logging_steps": 1,
        "seed": plan.seed,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if setup.trainer == "trl":
        return SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=columns(windows),
            eval_dataset=columns(validation),
            args=SFTConfig(**shared, gradient_checkpointing=False, bf16=False),
        )
    return Trainer(
        model=model,
        args=TrainingArguments(**shared, remove_unused_columns=False),
        train_dataset=windows,
        eval_dataset=validation,
        data_collator=lambda chosen: collate(chosen, tokenizer.pad_token_id),
    )


def columns(windows: list[Window]) -> Dataset:
    return Dataset.from_list(
        [{"input_ids": list(w.input_ids), "labels": list(w.labels)} for w in windows]
    )
