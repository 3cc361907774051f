"""The augmentations that a recipe names, and the training windows under them."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from heldout.core.augmentation import Augmentation, KeyFacts, Supplies
from heldout.core.discovery import build
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.kit.target import Target
from heldout.training.variants import AugmentedWindows
from heldout.training.windows import WindowDataset


def augmentations_of(
    recipe: Recipe, target: Target, read: Callable[[str], list[Row]]
) -> list[Augmentation]:
    """Build the augmentations that the recipe names, in its order, with what they need.

    ``read`` gives the rows that the augmentation of a name adds.
    """

    def base() -> tuple[Any, Any]:
        loaded = target.load(recipe)
        return loaded.model, loaded.tokenizer

    found = []
    for name, parameters in recipe.augment.items():
        augmentation = build("augmentation", name, parameters)
        augmentation.prepare(Supplies(lambda path: read(name), base))  # noqa: B023
        found.append(augmentation)
    return found


def windows_of(
    run: Run, target: Target, recipe: Recipe, rows: Any, tokenizer: Any
) -> WindowDataset:
    """The windows of a training: of the rows as they are, or of their variants in each epoch."""
    if not recipe.augment:
        return WindowDataset(rows, tokenizer, recipe.data.max_length)
    augmentations = _augmentations_of_run(run, target, json.dumps(recipe.augment))
    return augmented_windows(rows, tokenizer, recipe, augmentations)


def augmented_windows(
    rows: Any, tokenizer: Any, recipe: Recipe, augmentations: list[Augmentation]
) -> AugmentedWindows:
    """Windows that are made anew in each epoch."""
    return AugmentedWindows(
        rows,
        tokenizer,
        recipe.data.max_length,
        augmentations,
        seed=recipe.train.seed,
        planned_epochs=recipe.train.max_epochs,
        facts=KeyFacts(recipe.data.key_facts),
    )


@lru_cache(maxsize=1)
def _augmentations_of_run(run: Run, target: Target, augment: str) -> list[Augmentation]:
    """Kept for all conditions of a run, with what they have loaded and variants made so far."""
    recipe = replace(run.recipe, augment=json.loads(augment))
    return augmentations_of(recipe, target, lambda name: list(run.read_rows(name)))
