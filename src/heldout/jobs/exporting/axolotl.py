"""YAML for axolotl."""

from copy import deepcopy
from typing import Any

from heldout.jobs.exporting.counterparts import (
    dropout,
    early_stopping,
    neftune,
    place_regularizers,
    weight_decay,
)
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import (
    TrainerSettings,
    evaluation_arguments,
    exported_arguments,
)
from heldout.jobs.exporting.yaml_text import yaml_text

_NATIVE = {
    "weight_decay": weight_decay,
    "dropout": dropout,
    "early_stopping": early_stopping,
    "neftune": neftune,
}
_ROWS: dict[str, dict[str, Any]] = {
    "text": {"type": "completion", "field": "text"},
    "completion": {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
    "conversation": {
        "type": "chat_template",
        "message_field_training": "train",
        "message_field_training_detail": "train_detail",
    },
}
_CARRIED = ("eval.batch_size", "data.template_arguments", "model.load_in")
_KEPT = (
    *("warmup_steps", "max_grad_norm", "adam_beta2", "weight_decay", "neftune_noise_alpha"),
    "seed",
)


def snippet(source: RecipeToExport) -> str:
    """YAML for axolotl."""
    found = exported_arguments(source, carried=_CARRIED)
    place_regularizers(source, found, native=_NATIVE, attaches=False)
    train, recipe = found.train, source.recipe
    rows = {"ds_type": "json", **_ROWS[source.kind]}
    again = deepcopy(rows)  # else YAML points from one to the other
    table: dict[str, Any] = {
        "base_model": source.model,
        "datasets": [{"path": "train.jsonl", **rows}],
        "test_datasets": [{"path": "validation.jsonl", "split": "train", **again}],
        "val_set_size": 0,
        "output_dir": "out",
        "sequence_len": recipe.data.max_length,
        "sample_packing": False,
        "train_on_inputs": False,
        "num_epochs": train["num_train_epochs"],
        "micro_batch_size": train["per_device_train_batch_size"],
        "eval_batch_size": train["per_device_eval_batch_size"],
        "gradient_accumulation_steps": train["gradient_accumulation_steps"],
        "optimizer": train["optim"],
        "lr_scheduler": train["lr_scheduler_type"],
        "learning_rate": train.get("learning_rate", "LEARNING_RATE"),  # no number: refused there
        **{name: train[name] for name in _KEPT if name in train},
        "bf16": {"auto": "auto", "float32": False, "bfloat16": True}[recipe.train.precision],
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
    }
    if recipe.data.template_arguments:
        table["chat_template_kwargs"] = recipe.data.template_arguments
    if recipe.model.trust_remote_code:
        table["trust_remote_code"] = True
    table |= _adapter(found, recipe.model.load_in)
    # Its validation refuses patience beside evals_per_epoch, though that becomes eval_steps.
    every = evaluation_arguments(source)["eval_steps"]
    table["eval_steps"] = every
    if found.stops_early:
        table |= {
            "save_steps": every,
            "load_best_model_at_end": True,
            "early_stopping_patience": train["early_stopping_patience"],
        }
    return yaml_text(source, found, "axolotl", table)


def _adapter(found: TrainerSettings, load_in: str) -> dict[str, Any]:
    if not found.lora:
        return {}
    targets = found.lora["target_modules"]
    linear = targets == "all-linear"
    table = {
        "adapter": "qlora" if load_in == "4bit" else "lora",
        "lora_r": found.lora["r"],
        "lora_alpha": found.lora["lora_alpha"],
        "lora_dropout": found.lora["lora_dropout"],
        "lora_target_linear": linear,
    }
    for name in ("use_dora", "use_rslora", "init_lora_weights"):
        if name in found.lora:
            table[f"peft_{name}"] = found.lora[name]
    if load_in:
        table[f"load_in_{load_in}"] = True
    if not linear:
        table["lora_target_modules"] = targets
    return table
