"""YAML for axolotl."""

from typing import Any

from heldout.jobs.exporting.settings import (
    RecipeToExport,
    evaluation_arguments,
    exported_arguments,
    header,
    place_regularizers,
)
from heldout.jobs.exporting.yaml_lines import yaml_lines

_CONVERSATIONS = {
    "type": "chat_template",
    "message_field_training": "train",
    "message_field_training_detail": "train_detail",
}


def snippet(source: RecipeToExport) -> str:
    """YAML for axolotl."""
    found = exported_arguments(source)
    place_regularizers(source, found, attaches=False)
    train, recipe = found.train, source.recipe
    table: dict[str, Any] = {
        "base_model": source.model,
        "datasets": [{"path": "train.jsonl", "ds_type": "json", **_CONVERSATIONS}],
        "test_datasets": [
            {"path": "validation.jsonl", "ds_type": "json", "split": "train", **_CONVERSATIONS}
        ],
        "val_set_size": 0,
        "output_dir": "out",
        "sequence_len": recipe.data.max_length,
        "sample_packing": False,
        "train_on_inputs": False,
        "num_epochs": train["num_train_epochs"],
        "micro_batch_size": train["per_device_train_batch_size"],
        "gradient_accumulation_steps": train["gradient_accumulation_steps"],
        "optimizer": train["optim"],
        "lr_scheduler": train["lr_scheduler_type"],
        "learning_rate": train.get("learning_rate", "LEARNING_RATE"),  # required there
        **_kept(
            train,
            "warmup_steps",
            "max_grad_norm",
            "adam_beta2",
            "weight_decay",
            "neftune_noise_alpha",
            "seed",
        ),
        "bf16": {"auto": "auto", "float32": False, "bfloat16": True}[recipe.train.precision],
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
    }
    if found.lora:
        targets = found.lora["target_modules"]
        linear = targets == "all-linear"
        table |= {
            "adapter": "lora",
            "lora_r": found.lora["r"],
            "lora_alpha": found.lora["lora_alpha"],
            "lora_dropout": found.lora["lora_dropout"],
            "lora_target_linear": linear,
        }
        for name in ("use_dora", "use_rslora", "init_lora_weights"):
            if name in found.lora:
                table[f"peft_{name}"] = found.lora[name]
        if not linear:
            table["lora_target_modules"] = targets
    if "early_stopping_patience" in train:
        # Its validation refuses patience beside evals_per_epoch, though that becomes eval_steps.
        every = evaluation_arguments(source)["eval_steps"]
        table |= {
            "eval_steps": every,
            "save_steps": every,
            "load_best_model_at_end": True,
            "early_stopping_patience": train["early_stopping_patience"],
        }
    found.notes.append("datasets: type chat_template reads messages; set it to what your rows are")
    return "\n".join([*header(source, found, "axolotl"), *yaml_lines(table), ""])


def _kept(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
