"""The settings of a training as a short block of TOML, without anything that the user named."""

from typing import Any

import tomli_w

from heldout.core.recipe import Recipe

_MODEL = ("method", "adapter", "lora_rank", "lora_alpha", "gradient_checkpointing")
_TRAIN = (
    *("learning_rate", "max_epochs", "batch_size", "optimizer", "schedule", "warmup_steps"),
    *("max_grad_norm", "adam_beta2", "seed"),
)
_ADAPTER = ("adapter", "lora_rank", "lora_alpha")


def settings_block(recipe: Recipe, result: dict[str, Any]) -> str:
    """TOML of the sections that training reads; the learning rate is the one that was found.

    Numbers and switches of regularizers and augmentations; texts, which may be paths, stay out.
    """
    names = [name for name in _MODEL if recipe.model.method == "lora" or name not in _ADAPTER]
    model = {name: getattr(recipe.model, name) for name in names}
    train = {name: getattr(recipe.train, name) for name in _TRAIN}
    train["learning_rate"] = result.get("learning_rate") or recipe.train.learning_rate
    table: dict[str, Any] = {
        "data": {"max_length": recipe.data.max_length, "seed": recipe.data.seed},
        "model": model,
        "train": {name: value for name, value in train.items() if value is not None},
    }
    for section in ("regularizers", "augment"):
        parts = {
            name: {key: value for key, value in given.items() if isinstance(value, int | float)}
            for name, given in getattr(recipe, section).items()
            if ":" not in name and "/" not in name
        }
        if parts:
            table[section] = parts
    return tomli_w.dumps(table)
