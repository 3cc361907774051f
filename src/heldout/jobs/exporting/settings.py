"""What all trainers on transformers share: the settings of a recipe under their names, and notes.

What has no counterpart becomes a note; nothing is dropped silently.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from heldout.core.adapter_kinds import ADAPTERS
from heldout.core.discovery import entries_of
from heldout.core.own_classes import is_own
from heldout.core.recipe import Recipe

# What ``heldout.attach`` refuses: they work on held-out losses, which heldout fit alone measures.
UNATTACHED = ("rollback", "temperature", "wise_ft")
AVERAGES = ("ema", "swa")  # refused beside load_best_model_at_end, which would not bring them back
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


class Code(str):
    """An expression, as a value of a call that is written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class RecipeToExport:
    """What is exported; ``best_epochs`` and a found rate come from a finished run."""

    name: str
    recipe: Recipe
    model: str = "MODEL"
    learning_rate: float | None = None
    best_epochs: float | None = None


@dataclass
class TrainerSettings:
    """Arguments by section of the snippet, and what is told beside them."""

    train: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)  # calls of heldout's own classes
    callbacks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def exported_arguments(source: RecipeToExport) -> TrainerSettings:
    """Under the names of ``TrainingArguments``; regularizers are not in it."""
    recipe, train = source.recipe, source.recipe.train
    found = TrainerSettings()
    epochs = train.max_epochs if source.best_epochs is None else source.best_epochs
    found.train = {"num_train_epochs": _short(epochs)}
    if source.learning_rate is not None:
        found.train["learning_rate"] = source.learning_rate
    else:
        found.notes.append("learning rate: heldout fit finds it by a short search; set your own")
    if recipe.search.ranges:
        found.notes.append(
            f"{', '.join(recipe.search.ranges)}: where the search of heldout fit starts; a "
            "finished run has what it chose"
        )
    if source.best_epochs is not None and train.schedule != "constant":
        found.notes.append(
            f"the {train.schedule} fall of the rate was planned for {_short(train.max_epochs)} "
            "epochs; here it ends with the best one"
        )
    found.train |= {
        "per_device_train_batch_size": train.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps,
        "warmup_steps": train.warmup_steps,
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
            "target_modules": _targets(recipe),
            **ADAPTERS[recipe.model.adapter],
        }
    _tell_the_rest(source, found)
    return found


def _targets(recipe: Recipe) -> str | list[str]:
    """``all-linear``, or the names one by one, as PEFT wants them."""
    targets = recipe.model.lora_targets
    return targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]


def _tell_the_rest(source: RecipeToExport, found: TrainerSettings) -> None:
    """Comments on what no other trainer has as a setting."""
    recipe = source.recipe
    model, data = recipe.model, recipe.data
    found.notes.append(
        f"data.max_length={data.max_length}: heldout cuts longer rows into windows, others cut "
        "them off, with their end-of-text token"
    )
    if data.template_arguments:
        values = ", ".join(f"{name}={each!r}" for name, each in data.template_arguments.items())
        found.notes.append(
            f"data.template_arguments ({values}): give them to apply_chat_template, in TRL by a "
            "column chat_template_kwargs, in axolotl by chat_template_kwargs"
        )
    if model.tie_weights is not None:
        found.notes.append(f"model.tie_weights={str(model.tie_weights).lower()}: no counterpart")
    for name in ("norm", "norm_position"):
        if getattr(model, name):
            found.notes.append(f"model.{name}={getattr(model, name)}: no counterpart")
    for name, parameters in recipe.augment.items():
        found.notes.append(
            f"augment.{name} {parameters or ''}: no counterpart; heldout.augmented writes the "
            "variants as rows"
        )
    found.notes.append(
        "split: hold whole groups out, near duplicates with them: heldout check --write-clean"
    )


def place_regularizers(
    source: RecipeToExport, found: TrainerSettings, *, attaches: bool, smooths_labels: bool = False
) -> None:
    """Each regularizer by its counterpart, else by ``heldout.attach`` or, without it, as a note."""
    native = _counterparts(found, attaches=attaches, smooths_labels=smooths_labels)
    classes = {entry.name: entry.class_name for entry in entries_of("regularizer")}
    for name, parameters in source.recipe.regularizers.items():
        if name == "early_stopping" and source.best_epochs is not None:
            found.notes.append("early_stopping: not needed, the epochs are those of the best")
            continue
        if is_own(name):
            found.notes.append(f"regularizers.{name}: a class of your own, give it to attach")
            continue
        rest = native[name](parameters) if name in native else parameters
        if rest is None:
            continue
        values = ", ".join(f"{key}={value!r}" for key, value in rest.items())
        call = f"{classes.get(name, name)}({values})"
        if attaches and name in UNATTACHED:
            found.notes.append(
                f"regularizers.{name} {call}: no counterpart, it works on held-out losses, which "
                "heldout fit alone measures"
            )
        elif attaches:
            found.attached.append(f"heldout.{call}")
        else:
            found.notes.append(f"regularizers.{name} {call}: no counterpart")


def _counterparts(
    found: TrainerSettings, *, attaches: bool, smooths_labels: bool
) -> dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]]:
    """By regularizer, what makes it a setting and returns the parameters that have none."""

    def weight_decay(parameters: dict[str, Any]) -> dict[str, Any] | None:
        if (shrink := parameters.get("shrink_per_epoch")) is not None:
            found.notes.append(
                f"weight_decay.shrink_per_epoch={shrink:g}: give weight_decay, which is that "
                "divided by the sum of the learning rates of an epoch; a finished run has it"
            )
            return None
        if set(parameters) - {"rate"}:
            return parameters
        found.train["weight_decay"] = parameters.get("rate", 0.1)
        return None

    def dropout(parameters: dict[str, Any]) -> dict[str, Any] | None:
        rest = {key: value for key, value in parameters.items() if key != "adapter" and value}
        if parameters.get("adapter") and not found.lora:
            found.notes.append("dropout.adapter: there is no adapter in full fine-tuning")
        return rest or None

    def ema(parameters: dict[str, Any]) -> dict[str, Any]:
        if not (horizon := parameters.get("horizon")):
            return parameters
        batches = f"{horizon:g} * len(trainer.get_train_dataloader())"
        steps = f"{batches} / {found.train['gradient_accumulation_steps']}"
        found.notes.append(
            f"ema.horizon={horizon:g}: its epochs are said as a decay, 1 less one over their steps"
        )
        rest = {key: value for key, value in parameters.items() if key != "horizon"}
        return {**rest, "decay": Code(f"1 - 1 / max(2, {steps})")}

    def early_stopping(parameters: dict[str, Any]) -> None:
        patience, delta = parameters.get("patience", 3), parameters.get("min_delta", 0.0)
        found.callbacks.append(f"EarlyStoppingCallback({patience}, {delta})")
        found.train["early_stopping_patience"] = patience
        found.notes.append(
            "early_stopping.certain_rise: no counterpart; others stop by patience alone"
        )

    def label_smoothing(parameters: dict[str, Any]) -> None:
        found.train["label_smoothing_factor"] = parameters.get("amount", 0.1)

    def neftune(parameters: dict[str, Any]) -> None:
        found.train["neftune_noise_alpha"] = parameters.get("alpha", 5.0)
        found.notes.append("neftune: scaled by padded length there, by each row's own here")

    native: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
        "weight_decay": weight_decay,
        "dropout": dropout,
        "early_stopping": early_stopping,
    }
    if attaches:
        native["ema"] = ema
    else:
        native["neftune"] = neftune
    if smooths_labels:
        native["label_smoothing"] = label_smoothing
    return native


def evaluation_arguments(source: RecipeToExport) -> dict[str, Any]:
    """To keep the best checkpoint; evaluated after a share of the whole training."""
    recipe = source.recipe
    every = _short(1 / max(1.0, recipe.eval.per_epoch * recipe.train.max_epochs))
    return {
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
    }


def header(source: RecipeToExport, found: TrainerSettings, trainer: str) -> list[str]:
    """What it is, and what has no counterpart."""
    title = f"# {source.name}, for {trainer}."
    return [title, *(f"# - {' '.join(note.split())}" for note in found.notes), ""]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
