"""What is exported: a recipe, or what a finished run found with its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from heldout.core.damage import refuse_damaged
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.lm.source import find_source

Kind = Literal["text", "completion", "conversation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MODEL = "MODEL"  # to be filled in


@dataclass(frozen=True)
class RecipeToExport:
    """``best_epochs`` and a found rate come from a finished run, as do its rows."""

    name: str
    recipe: Recipe
    kind: Kind = "conversation"  # of the rows
    model: str = MODEL
    learning_rate: float | None = None
    best_epochs: float | None = None
    num_rows: int | None = None  # to train on; None: not known
    notes: tuple[str, ...] = ()
    run: Run | None = None

    @property
    def epochs(self) -> float:
        return self.recipe.train.max_epochs if self.best_epochs is None else self.best_epochs

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps; None where the number of rows is not known."""
        if self.num_rows is None:
            return None
        return -(-self.num_rows // self.recipe.train.batch_size)


def read_source(source: str | Path, kind: str | None = None) -> RecipeToExport:
    """A run folder, a ready recipe's name or a .toml file; ``kind`` of the rows of the latter two.

    Raises UserError for what is none of them, an unfinished run and an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--rows must be one of {', '.join(KINDS)}, got {kind!r}.")
    folder = Path(source)
    if not folder.is_dir():
        recipe = load_recipe(source)
        rate = recipe.train.learning_rate
        found = RecipeToExport(f"the recipe {source}", recipe, learning_rate=rate)
        return found if kind is None else replace(found, kind=kind)
    if kind is not None:
        raise UserError(f"--rows {kind}: {folder} is a run, which has rows: leave --rows out.")
    run = Run.open(folder)
    if not run.path("result.json").is_file():
        raise UserError(f"{folder} has no result.json: the run was not trained to its end.")
    refuse_damaged(run)
    result = run.read_json("result.json")
    if result["best_step"] == 0:
        raise UserError(
            f"{folder}: no checkpoint was better than the base model, so there is nothing to copy."
        )
    environment = run.read_json("environment.json")
    model, notes = _model_of(environment)
    rows = _rows_of(run)
    recipe = run.recipe
    if rows:
        notes.append(
            f"rows: {rows[1]} of the run's own split; its test rows stay sealed in the run"
        )
        if untrained := sum(map(_has_untrained, run.read_rows("train"))):
            notes.append(
                f"rows: {untrained} hold answers that heldout leaves untrained (train: false, "
                "train_detail), as axolotl does; other trainers train them too"
            )
    return RecipeToExport(
        f"the best checkpoint of {folder.name}",
        _with_found_decay(recipe, result),
        kind=rows[0] if rows else "conversation",
        model=model,
        learning_rate=result.get("learning_rate") or recipe.train.learning_rate,
        best_epochs=result["best_epoch"],
        num_rows=rows[1] if rows else None,
        notes=tuple(notes),
        run=run if rows else None,
    )


def _rows_of(run: Run) -> tuple[Kind, int] | None:
    """Kind and number of the training rows, which an old run may not have; several are refused."""
    if not run.path("data/train.jsonl").is_file():
        return None
    kinds: dict[Kind, int] = {}
    for row in run.read_rows("train"):
        kinds[row.kind] = kinds.get(row.kind, 0) + 1
    if len(kinds) > 1:
        found = ", ".join(f"{num} {kind}" for kind, num in kinds.items())
        raise UserError(
            f"{run.folder} has rows of several kinds ({found}), which other trainers do not take "
            "in one file: train on one kind, such as conversations alone."
        )
    return next(iter(kinds.items()), None)


def _has_untrained(row: Row) -> bool:
    return any(
        message.get("role") == "assistant"
        and (message.get("train", True) is False or message.get("train_detail") is not None)
        for message in row.messages
    )


def _model_of(environment: dict[str, Any]) -> tuple[str, list[str]]:
    """A name or folder that other trainers can load, and what is to be known of it."""
    if scratch := environment.get("from_scratch"):
        return MODEL, [
            f"model: the run began with new weights, of the configuration {scratch}; others begin "
            "with trained ones: save such a model and give its folder as MODEL"
        ]
    name = str(environment.get("model") or MODEL)
    if not name.startswith("package:"):
        return name, []
    try:
        path = find_source(name).path
    except UserError:
        path = None
    if path is None:
        return MODEL, [f"model: {name} is not installed here; give its folder as MODEL"]
    return str(path.resolve()), [f"model: the folder of {name}"]


def _with_found_decay(recipe: Recipe, result: dict[str, Any]) -> Recipe:
    """A decay that is said as a shrink as the run found it, per step and unit of learning rate."""
    parameters = recipe.regularizers.get("weight_decay", {})
    if "shrink_per_epoch" not in parameters:
        return recipe
    others = {key: value for key, value in parameters.items() if key != "shrink_per_epoch"}
    found = {"rate": result["weight_decay"], **others}
    return replace(recipe, regularizers={**recipe.regularizers, "weight_decay": found})
