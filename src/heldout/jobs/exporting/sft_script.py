"""What scripts for TRL's SFTTrainer share: its configuration, its data and what is attached."""

from typing import Any

from heldout.jobs.exporting.settings import (
    AVERAGES,
    RecipeToExport,
    TrainerSettings,
    evaluation_arguments,
    exported_arguments,
    place_regularizers,
)


def script_settings(source: RecipeToExport) -> TrainerSettings:
    """All arguments of ``SFTConfig``, with what is attached."""
    found = exported_arguments(source)
    place_regularizers(source, found, attaches=True)
    if found.train.pop("early_stopping_patience", None) is not None:
        found.train |= evaluation_arguments(source)
        if averages := [name for name in AVERAGES if name in source.recipe.regularizers]:
            found.train["load_best_model_at_end"] = False
            found.notes.append(
                f"load_best_model_at_end: it would bring back weights without {averages[0]}, so "
                "the average at the end is kept, not the best"
            )
    if source.recipe.train.precision != "auto":
        found.train["bf16"] = source.recipe.train.precision == "bfloat16"
    found.train["gradient_checkpointing"] = source.recipe.model.gradient_checkpointing
    return found


def config_lines(found: TrainerSettings, *, max_length: int) -> list[str]:
    lines = [f"    {key}={value!r}," for key, value in found.train.items()]
    return [
        "args = SFTConfig(",
        "    output_dir='out',",
        f"    max_length={max_length},",
        *lines,
        ")",
    ]


def data_lines() -> list[str]:
    return [
        "    train_dataset=load_dataset('json', data_files=TRAIN, split='train'),",
        "    eval_dataset=load_dataset('json', data_files=VALIDATION, split='train'),",
    ]


def callback_import(found: TrainerSettings) -> list[str]:
    return ["from transformers import EarlyStoppingCallback"] if found.callbacks else []


def attach_lines(found: TrainerSettings) -> list[str]:
    """The call of ``heldout.attach``, where anything is attached."""
    if not found.attached:
        return []
    return ["import heldout", f"heldout.attach(trainer, [{', '.join(found.attached)}])"]


def arguments(values: dict[str, Any]) -> str:
    """``key=value`` pairs of a call."""
    return ", ".join(f"{key}={value!r}" for key, value in values.items())
