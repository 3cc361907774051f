"""How a run was trained: its recipe's settings, what came of them, and where it ran."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from heldout.core.environment import without_home
from heldout.core.finite import finite
from heldout.core.recipe import Recipe
from heldout.report import words
from heldout.report.summary import RunSummary


@dataclass(frozen=True)
class RecipeSetting:
    """A recipe field; ``default`` is what the field is where nobody sets it."""

    key: str
    value: str
    default: str
    changed: bool


def settings(recipe: Recipe | None) -> list[RecipeSetting]:
    """Every field of the recipe, those that differ from the default first."""
    if recipe is None:
        return []
    default = Recipe()
    rows = []
    for item in fields(recipe):
        section, plain = getattr(recipe, item.name), getattr(default, item.name)
        if is_dataclass(section):
            for part in fields(section):
                value, usual = getattr(section, part.name), getattr(plain, part.name)
                key = f"{item.name}.{part.name}"
                rows.append(RecipeSetting(key, _shown(value), _shown(usual), value != usual))
    for kind in ("regularizers", "augment"):
        for name, parameters in getattr(recipe, kind).items():
            if not parameters:
                rows.append(RecipeSetting(f"{kind}.{name}", "on", "off", True))
            for key, value in parameters.items():
                rows.append(RecipeSetting(f"{kind}.{name}.{key}", _shown(value), "off", True))
    return sorted(rows, key=lambda row: not row.changed)


def training_facts(summary: RunSummary) -> list[tuple[str, str]]:
    """Name and value, for the list above the settings."""
    result, recipe, facts = summary.result, summary.recipe, []
    if recipe is not None:
        facts.append(("Recipe", recipe.name))
        names = ", ".join(name.replace("_", " ") for name in recipe.regularizers)
        facts.append(("Regularizers", names or "none"))
        if recipe.augment:
            names = ", ".join(name.replace("_", " ") for name in recipe.augment)
            facts.append(("Augmentation", names))
    method = result.get("method") or (recipe.model.method if recipe else None)
    trained, total = finite(result.get("trained_parameters")), finite(result.get("parameters"))
    if method:
        text = {"lora": "LoRA", "full": "all parameters"}.get(str(method), str(method))
        if trained is not None and total:
            share = words.fine_percent(trained / total)
            text += f": {words.integer(int(trained))} of {words.integer(int(total))} ({share})"
        facts.append(("Trained", text))
    rate = finite(result.get("learning_rate"))
    if rate is not None:
        searched = " (found by search)" if summary.search or _is_tuned(summary) else ""
        facts.append(("Learning rate", f"{words.short(rate)}{searched}"))
    decay, shrink = (finite(result.get(key)) for key in ("weight_decay", "weight_decay_shrink"))
    if decay is not None and shrink is not None:
        left = words.percent(math.exp(-shrink))
        text = f"{words.short(decay)}; over the planned steps it shrinks weights to {left}"
        facts.append(("Weight decay", text))
    if recipe is not None:
        facts.append(("Rows per step", str(recipe.train.batch_size)))
    steps = finite(result.get("steps_per_epoch"))
    if steps is not None:
        facts.append(("Steps per epoch", words.epoch(steps)))
    return facts


def _is_tuned(summary: RunSummary) -> bool:
    return summary.tuning is not None and "train.learning_rate" in summary.tuning.chosen


def environment_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Flat name and value; versions of packages last."""
    rows = [
        (words.sentence_case(key), without_home(_shown(value)))
        for key, value in summary.environment.items()
        if key not in ("versions", "sha256") and value not in (None, "")
    ]
    versions = summary.environment.get("versions")
    if isinstance(versions, dict):
        rows += [(str(name), str(version)) for name, version in versions.items()]
    return rows


def differing_settings(recipes: Sequence[Recipe | None]) -> list[tuple[str, list[str]]]:
    """Recipe fields on which runs differ: key, and each run's value."""
    tables = [{row.key: row.value for row in settings(recipe)} for recipe in recipes]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = [(key, [table.get(key, "off") for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "automatic"
    if isinstance(value, float):
        return words.short(value)
    if isinstance(value, tuple | list):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) or "none"
    return str(value) if value != "" else "none"
