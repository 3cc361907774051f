"""The recipe that a caller means."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from heldout.core.augmentation import Augmentation
from heldout.core.errors import UserError
from heldout.core.own_classes import as_parameters, is_own
from heldout.core.recipe import DEFAULT, Recipe, load_recipe
from heldout.core.regularizer import Regularizer
from heldout.core.run_files import PreflightCheck
from heldout.jobs.kit.target import Target
from heldout.lm.load import count_parameters
from heldout.search.learning_rate import SMALL_MODEL

FULL, LORA = "full", "lora"
_OF_ADAPTERS = ("model.lora", "model.adapter", "model.load_in")


def chosen_recipe(recipe: str | Path | Recipe, settings: Sequence[str]) -> Recipe:
    """A name or file with ``section.key=value`` settings over it, or a Recipe as it is."""
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, settings)
    if settings:
        raise UserError("settings go with a recipe's name or file, not with a Recipe object.")
    return recipe


def recipe_for(target: Target, recipe: str | Path | Recipe, settings: Sequence[str]) -> Recipe:
    """The same, and of ``default`` the one for this model.

    That is ``full`` for models of under ``SMALL_MODEL`` parameters and new ones, else ``lora``;
    settings that only one of them has decide first, and an adapter is gone on with.
    """
    name = _default_for(target, settings) if recipe == DEFAULT else recipe
    return chosen_recipe(name, settings)


def with_objects(
    recipe: Recipe, regularizers: Sequence[Regularizer], augmentations: Sequence[Augmentation]
) -> Recipe:
    """The recipe with what is given as objects, in place of its own of the same name.

    Classes of one's own may be known to this process alone, which then trains by itself.
    """
    added = as_parameters("regularizer", Regularizer, regularizers, "regularizers")
    more = as_parameters("augmentation", Augmentation, augmentations, "augmentations")
    if any(is_own(name) for name in (*added, *more)):
        recipe = recipe.replace(train={"side_by_side": 1})
    return replace(
        recipe,
        regularizers={**recipe.regularizers, **added},
        augment={**recipe.augment, **more},
    )


def default_in_words(chosen: Recipe) -> PreflightCheck:
    """Which recipe ``default`` was, for a plan."""
    words = (
        f"{chosen.name}; by default full (all parameters) for models under "
        f"{SMALL_MODEL // 1_000_000} million parameters, else lora (adapters)"
    )
    return PreflightCheck("recipe", "ok", words)


def _default_for(target: Target, settings: Sequence[str]) -> str:
    keys = [setting.partition("=")[0].strip() for setting in settings]
    by_lora = load_recipe(LORA, settings)
    if "model.method" in keys or target.from_scratch:
        is_full = by_lora.model.method == "full" or bool(target.from_scratch)
        return FULL if is_full else LORA
    if any(key.startswith(_OF_ADAPTERS) for key in keys):
        return LORA
    num = count_parameters(target.model, trust_remote_code=by_lora.model.trust_remote_code)
    return FULL if num is not None and num < SMALL_MODEL else LORA
