"""Each regularizer of a recipe: another trainer's setting, a call of ``heldout.attach``, a note."""

from collections.abc import Callable, Mapping
from typing import Any

from heldout.core.discovery import entries_of
from heldout.core.own_classes import is_own
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import TrainerSettings

# What ``heldout.attach`` refuses: they work on held-out losses, which heldout fit alone measures.
UNATTACHED = ("rollback", "temperature", "wise_ft")

# Sets what it can, and returns the parameters that have no setting: None where all have.
Counterpart = Callable[[TrainerSettings, dict[str, Any]], dict[str, Any] | None]


class Code(str):
    """An expression, as a value of a call that is written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def place_regularizers(
    source: RecipeToExport,
    found: TrainerSettings,
    *,
    native: Mapping[str, Counterpart],
    attaches: bool,
) -> None:
    """``native`` has those that the trainer has settings for; others are attached, or noted."""
    classes = {entry.name: entry.class_name for entry in entries_of("regularizer")}
    for name, parameters in source.recipe.regularizers.items():
        if name == "early_stopping" and source.best_epochs is not None:
            found.notes.append(
                f"early_stopping {parameters or ''}: not needed, the epochs are those of the best"
            )
            continue
        if is_own(name):
            found.notes.append(
                f"regularizers.{name} {parameters or ''}: a class of your own, give it to attach"
            )
            continue
        rest = native[name](found, parameters) if name in native else parameters
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


def weight_decay(found: TrainerSettings, parameters: dict[str, Any]) -> dict[str, Any] | None:
    if (shrink := parameters.get("shrink_per_epoch")) is not None:
        found.notes.append(
            f"weight_decay.shrink_per_epoch={shrink:g}: give weight_decay, which is that "
            "divided by the sum of the learning rates of an epoch; a finished run has it"
        )
        rest = {key: value for key, value in parameters.items() if key != "shrink_per_epoch"}
        if rest:
            found.notes.append(f"weight_decay {rest}: no counterpart beside it")
        return None
    if set(parameters) - {"rate"}:
        return parameters
    found.train["weight_decay"] = parameters.get("rate", 0.1)
    return None


def dropout(found: TrainerSettings, parameters: dict[str, Any]) -> dict[str, Any] | None:
    rest = {key: value for key, value in parameters.items() if key != "adapter" and value}
    if parameters.get("adapter") and not found.lora:
        found.notes.append(
            f"dropout.adapter={parameters['adapter']:g}: there is no adapter in full fine-tuning"
        )
    return rest or None


def ema(found: TrainerSettings, parameters: dict[str, Any]) -> dict[str, Any]:
    if not (horizon := parameters.get("horizon")):
        return parameters
    batches = f"{horizon:g} * len(trainer.get_train_dataloader())"
    steps = f"{batches} / {found.train['gradient_accumulation_steps']}"
    found.notes.append(
        f"ema.horizon={horizon:g}: its epochs are said as a decay, 1 less one over their steps"
    )
    rest = {key: value for key, value in parameters.items() if key != "horizon"}
    return {**rest, "decay": Code(f"1 - 1 / max(2, {steps})")}


def early_stopping(found: TrainerSettings, parameters: dict[str, Any]) -> None:
    """By patience alone, where there is no more."""
    found.stops_early = True
    found.train["early_stopping_patience"] = parameters.get("patience", 3)
    told = {"min_delta": 0.0, "certain_rise": 0.02} | parameters
    rest = ", ".join(f"{key}={told[key]:g}" for key in ("min_delta", "certain_rise") if told[key])
    if rest:
        found.notes.append(f"early_stopping: {rest}: no counterpart; patience alone stops it")


def early_stopping_callback(found: TrainerSettings, parameters: dict[str, Any]) -> None:
    """As transformers' own callback, which has a threshold, too."""
    found.stops_early = True
    patience, delta = parameters.get("patience", 3), parameters.get("min_delta", 0.0)
    found.callbacks.append(f"EarlyStoppingCallback({patience}, {delta})")
    rise = parameters.get("certain_rise", 0.02)
    found.notes.append(f"early_stopping.certain_rise={rise:g}: no counterpart; patience stops it")


def label_smoothing(found: TrainerSettings, parameters: dict[str, Any]) -> dict[str, Any] | None:
    found.train["label_smoothing_factor"] = parameters.get("amount", 0.1)
    return {key: value for key, value in parameters.items() if key != "amount"} or None


def neftune(found: TrainerSettings, parameters: dict[str, Any]) -> dict[str, Any] | None:
    found.train["neftune_noise_alpha"] = parameters.get("alpha", 5.0)
    found.notes.append("neftune: scaled by padded length there, by each row's own here")
    return {key: value for key, value in parameters.items() if key != "alpha"} or None
