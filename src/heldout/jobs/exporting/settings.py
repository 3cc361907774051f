"""What all trainers on transformers share: the settings of a recipe under their names, and notes.

What has no counterpart becomes a note; nothing is dropped silently.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from heldout.core.adapter_kinds import ADAPTERS
from heldout.jobs.exporting.others import note_the_others
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.training.arguments import warmup_steps

AVERAGES = ("ema", "swa")  # refused beside load_best_model_at_end, which would not bring them back
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
NO_RATE = "heldout fit finds it by a short search"


@dataclass
class TrainerSettings:
    """Arguments by section of the snippet, and what is told beside them."""

    train: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)  # calls of heldout's own classes
    callbacks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stops_early: bool = False


def exported_arguments(source: RecipeToExport, *, carried: tuple[str, ...]) -> TrainerSettings:
    """Under the names of ``TrainingArguments``; regularizers are not in it.

    ``carried`` names the keys of a recipe that this trainer alone has a setting for.
    """
    recipe, train = source.recipe, source.recipe.train
    found = TrainerSettings(notes=list(source.notes))
    found.train = {"num_train_epochs": short(source.epochs)}
    if source.learning_rate is not None:
        found.train["learning_rate"] = source.learning_rate
    else:
        found.notes.append(f"learning rate: {NO_RATE}; set your own")
    if recipe.search.ranges:
        found.notes.append(
            f"search.ranges of {', '.join(recipe.search.ranges)}: where the search of heldout fit "
            "starts; a finished run has what it chose"
        )
    if source.best_epochs is not None:
        found.notes.append(
            f"epochs: to the best checkpoint of the run, which was allowed "
            f"{short(train.max_epochs)}"
        )
        if train.schedule != "constant":
            found.notes.append(
                f"the {train.schedule} fall of the rate was planned for {short(train.max_epochs)} "
                "epochs; here it ends with the best one"
            )
    found.train |= {
        "per_device_train_batch_size": train.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps,
        "per_device_eval_batch_size": recipe.eval.batch_size,
        "warmup_steps": _warmup(source, found.notes),
        "max_grad_norm": train.max_grad_norm,
        "adam_beta2": train.adam_beta2,
        "seed": train.seed,
    }
    if train.optimizer == "schedule_free":
        found.train |= {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}
    else:
        found.train |= {"optim": "adamw_torch", "lr_scheduler_type": SCHEDULES[train.schedule]}
    if recipe.model.method == "lora":
        found.lora = {
            "r": recipe.model.lora_rank,
            "lora_alpha": recipe.model.lora_alpha,
            "lora_dropout": recipe.regularizers.get("dropout", {}).get("adapter", 0.0),
            "target_modules": _targets(recipe.model.lora_targets),
            **ADAPTERS[recipe.model.adapter],
        }
    note_the_others(source, found.notes, carried)
    return found


def evaluation_arguments(source: RecipeToExport) -> dict[str, Any]:
    """Of evaluations after a share of the whole training."""
    every = short(1 / max(1.0001, source.recipe.eval.per_epoch * source.epochs))  # 1 were a step
    return {"eval_strategy": "steps", "eval_steps": every}


def best_arguments(source: RecipeToExport) -> dict[str, Any]:
    """To keep the checkpoint of the lowest held-out loss."""
    return {
        "save_strategy": "steps",
        "save_steps": evaluation_arguments(source)["eval_steps"],
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
    }


def header(source: RecipeToExport, found: TrainerSettings, trainer: str) -> list[str]:
    """What it is, and what has no counterpart."""
    title = f"# {source.name}, for {trainer}."
    return [title, *(f"# - {' '.join(note.split())}" for note in found.notes), ""]


def short(value: float) -> float:
    """To four digits, as a setting is written; a whole number as such."""
    return int(value) if value == int(value) else float(f"{value:.4g}")


def _warmup(source: RecipeToExport, notes: list[str]) -> int:
    """At most half of the planned training, where its steps are known."""
    train = source.recipe.train
    if source.steps_per_epoch is not None:
        return warmup_steps(source.recipe, math.ceil(train.max_epochs * source.steps_per_epoch))
    if train.warmup_steps:
        notes.append(f"train.warmup_steps={train.warmup_steps}: give at most half of all steps")
    return train.warmup_steps


def _targets(targets: str) -> str | list[str]:
    """``all-linear``, or the names one by one, as PEFT wants them."""
    return targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]
