"""The recipe that a caller means."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, load_recipe


def chosen_recipe(recipe: str | Path | Recipe, settings: Sequence[str]) -> Recipe:
    """A name or file with ``section.key=value`` settings over it, or a Recipe as it is."""
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, settings)
    if settings:
        raise UserError("settings go with a recipe's name or file, not with a Recipe object.")
    return recipe
