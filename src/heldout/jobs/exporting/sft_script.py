"""What scripts for TRL's SFTTrainer share: its configuration, its data and what is attached."""

from typing import Any

from heldout.jobs.exporting.counterparts import (
    Code,
    dropout,
    early_stopping_callback,
    ema,
    place_regularizers,
    weight_decay,
)
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import (
    AVERAGES,
    NO_RATE,
    TrainerSettings,
    best_arguments,
    evaluation_arguments,
    exported_arguments,
)

_NATIVE = {
    "weight_decay": weight_decay,
    "dropout": dropout,
    "early_stopping": early_stopping_callback,
    "ema": ema,
}
_HALF = "torch.cuda.is_available() and torch.cuda.is_bf16_supported()"


def script_settings(source: RecipeToExport) -> TrainerSettings:
    """All arguments of ``SFTConfig``, with what is attached."""
    recipe = source.recipe
    carried = ("eval.batch_size", "train.report_to", "model.load_in")
    found = exported_arguments(source, carried=carried)
    place_regularizers(source, found, native=_NATIVE, attaches=True)
    found.train.setdefault("learning_rate", Code("LEARNING_RATE"))
    found.train |= evaluation_arguments(source)
    if found.stops_early:
        found.train |= best_arguments(source)
        if averages := [name for name in AVERAGES if name in recipe.regularizers]:
            found.train["load_best_model_at_end"] = False
            found.notes.append(
                f"load_best_model_at_end: it would bring back weights without {averages[0]}, so "
                "the average at the end is kept, not the best"
            )
    halves = {"auto": Code(_HALF), "float32": False, "bfloat16": True}
    found.train["bf16"] = halves[recipe.train.precision]
    found.train["gradient_checkpointing"] = recipe.model.gradient_checkpointing
    found.train["report_to"] = list(recipe.train.report_to) or "none"
    if recipe.model.trust_remote_code:
        found.train["trust_remote_code"] = True
    if source.kind == "conversation":  # else the user's turns are trained, too
        found.train["assistant_only_loss"] = True
    return found


def rate_lines(source: RecipeToExport) -> list[str]:
    """A rate that nobody has found is asked for, as the trainer's own would be taken silently."""
    if source.learning_rate is not None:
        return []
    return [
        f"LEARNING_RATE = None  # {NO_RATE}",
        "if LEARNING_RATE is None:",
        "    raise SystemExit('Set LEARNING_RATE in this script first.')",
        "",
    ]


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


def torch_import(found: TrainerSettings) -> list[str]:
    return ["import torch"] if isinstance(found.train["bf16"], Code) else []


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
