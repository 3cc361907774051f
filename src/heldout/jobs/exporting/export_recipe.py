"""The settings of a recipe, or of a run's best, for another trainer: a snippet ready to use.

One trainer a file; what has no counterpart there stands in the snippet as a comment.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from heldout.core.damage import refuse_damaged
from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.run import Run
from heldout.jobs.exporting import axolotl, llama_factory, trl, unsloth
from heldout.jobs.exporting.settings import RecipeToExport

TRAINERS: dict[str, Callable[[RecipeToExport], str]] = {
    "trl": trl.snippet,
    "axolotl": axolotl.snippet,
    "llama-factory": llama_factory.snippet,
    "unsloth": unsloth.snippet,
}


def export_recipe(source: str | Path, trainer: str) -> str:
    """A script (trl, unsloth) or YAML (axolotl, llama-factory) with the settings of ``source``.

    ``source`` is a run folder, a ready recipe's name or a .toml file. Of a run the learning rate is
    the one that was found, and the number of epochs that of its best checkpoint. Raises UserError
    for an unknown source or trainer.
    """
    if trainer not in TRAINERS:
        known = ", ".join(TRAINERS)
        raise UserError(
            f"--for must be one of {known}, got {trainer!r}{did_you_mean(trainer, list(TRAINERS))}"
        )
    return TRAINERS[trainer](_read(source))


def _read(source: str | Path) -> RecipeToExport:
    folder = Path(source)
    if not folder.is_dir():
        recipe = load_recipe(source)
        return RecipeToExport(
            f"the recipe {source}", recipe, learning_rate=recipe.train.learning_rate
        )
    run = Run.open(folder)
    if not run.path("result.json").is_file():
        raise UserError(f"{folder} has no result.json: the run was not trained to its end.")
    refuse_damaged(run)
    result = run.read_json("result.json")
    recipe = _with_found_decay(run.recipe, result)
    if result["best_step"] == 0:
        raise UserError(
            f"{folder}: no checkpoint was better than the base model, so there is nothing to copy."
        )
    return RecipeToExport(
        f"the best checkpoint of {folder.name}",
        recipe,
        run.read_json("environment.json").get("model", "MODEL"),
        result.get("learning_rate") or recipe.train.learning_rate,
        result["best_epoch"],
    )


def _with_found_decay(recipe: Recipe, result: dict[str, Any]) -> Recipe:
    """A decay that is said as a shrink as the run found it, per step and unit of learning rate."""
    parameters = recipe.regularizers.get("weight_decay", {})
    if "shrink_per_epoch" not in parameters:
        return recipe
    others = {key: value for key, value in parameters.items() if key != "shrink_per_epoch"}
    found = {"rate": result["weight_decay"], **others}
    return replace(recipe, regularizers={**recipe.regularizers, "weight_decay": found})
