"""Notes on every key of a recipe that no setting of a trainer stands for.

What has a setting everywhere is listed here, all else is told: a key that a recipe gets tomorrow
appears as a comment by itself.
"""

import dataclasses
from typing import Any

from heldout.core.recipe import Recipe
from heldout.jobs.exporting.recipe_to_export import RecipeToExport

# Of which each trainer's snippet has the value, or a note of its own.
CARRIED = {
    *("train.learning_rate", "train.max_epochs", "train.batch_size", "train.micro_batch_size"),
    *("train.warmup_steps", "train.schedule", "train.optimizer", "train.seed"),
    *("train.max_grad_norm", "train.adam_beta2", "train.precision"),
    *("model.method", "model.adapter", "model.lora_rank", "model.lora_alpha"),
    *("model.lora_targets", "model.gradient_checkpointing", "model.trust_remote_code"),
    *("data.max_length", "eval.per_epoch", "search.ranges"),
}
_WHOSE = {
    "data": "of reading and splitting the rows",
    "model": "of the model, no counterpart",
    "train": "of the training, no counterpart",
    "eval": "of what heldout measures",
    "search": "of heldout fit's search",
    "control": "of heldout fit's control",
    "hyperfit": "of heldout hyperfit",
}


def note_the_others(source: RecipeToExport, notes: list[str], carried: tuple[str, ...]) -> None:
    """Append what the snippet does not hold; ``carried``: more keys that this trainer has."""
    recipe = source.recipe
    notes.append(
        f"data.max_length={recipe.data.max_length}: heldout cuts longer rows into windows, others "
        "cut them off, with their end-of-text token, or leave them out"
    )
    if recipe.data.template_arguments and "data.template_arguments" not in carried:
        values = ", ".join(f"{k}={v!r}" for k, v in recipe.data.template_arguments.items())
        notes.append(f"data.template_arguments: give ({values}) to apply_chat_template")
    for section, keys in _changed(recipe, {*carried, "data.template_arguments"}).items():
        notes.append(f"{_WHOSE[section]}: {', '.join(keys)}")
    for name, parameters in recipe.augment.items():
        notes.append(
            f"augment.{name} {parameters or ''}: no counterpart; heldout.augmented writes the "
            "variants as rows"
        )
    if source.run is None:
        notes.append(
            "split: hold whole groups out, near duplicates with them: heldout check --write-clean"
        )


def _changed(recipe: Recipe, carried: set[str]) -> dict[str, list[str]]:
    """By section, ``key=value`` of what differs from its default and has no setting."""
    usual = Recipe()
    found: dict[str, list[str]] = {}
    for section in _WHOSE:
        now, before = getattr(recipe, section), getattr(usual, section)
        for each in dataclasses.fields(now):
            key = f"{section}.{each.name}"
            value = getattr(now, each.name)
            if value != getattr(before, each.name) and key not in CARRIED | carried:
                found.setdefault(section, []).append(f"{key}={_written(value)}")
    return found


def _written(value: Any) -> str:
    """As in TOML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
