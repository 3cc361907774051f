"""What fields of a recipe's sections must keep together."""

from typing import TYPE_CHECKING

from heldout.core.adapter_kinds import ADAPTERS
from heldout.core.errors import UserError

if TYPE_CHECKING:
    from heldout.core.recipe import Recipe


def check_sections(recipe: "Recipe") -> None:
    """Raises UserError for values that exclude each other."""
    if recipe.train.batch_size % recipe.train.micro_batch_size:
        raise UserError(
            f"train.batch_size must be a multiple of train.micro_batch_size "
            f"({recipe.train.micro_batch_size}), got {recipe.train.batch_size}."
        )
    if recipe.train.optimizer == "schedule_free" and recipe.train.schedule != "constant":
        raise UserError(
            "train.optimizer=schedule_free averages in place of a falling rate: use it with "
            f"train.schedule=constant, got {recipe.train.schedule!r}."
        )
    if recipe.data.validation_share + recipe.data.test_share > 0.8:
        raise UserError(
            "data.validation_share plus data.test_share must leave at least 0.2 for training, "
            f"got {recipe.data.validation_share} + {recipe.data.test_share}."
        )
    _check_quantized(recipe)


def _check_quantized(recipe: "Recipe") -> None:
    model = recipe.model
    if not model.load_in:
        return
    if model.method != "lora":
        raise UserError(
            f"model.load_in={model.load_in} is for frozen weights with an adapter on them: use "
            f"model.method=lora, or leave it out, got model.method={model.method}."
        )
    if "init_lora_weights" in ADAPTERS[model.adapter]:
        raise UserError(
            f"model.adapter={model.adapter} takes a part of the weights out of the base, which "
            f"model.load_in={model.load_in} does not let it: use lora, rslora or dora."
        )
