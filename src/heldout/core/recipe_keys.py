"""Every key of a recipe with its default and what it means, read off the comments of recipe.py."""

import ast
import dataclasses
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

from heldout.core import recipe as recipe_module
from heldout.core.recipe import Recipe


@dataclass(frozen=True)
class RecipeKey:
    """``name`` is the dotted key, ``meaning`` what stands behind or above the field."""

    name: str
    default: Any
    meaning: str


@cache
def recipe_keys() -> dict[str, tuple[RecipeKey, ...]]:
    """Section -> its keys, in their order, without those of regularizers and augmentations."""
    comments, default = _comments(), Recipe()
    found = {}
    for section in dataclasses.fields(Recipe):
        values = getattr(default, section.name)
        if dataclasses.is_dataclass(values):
            found[section.name] = tuple(
                RecipeKey(
                    f"{section.name}.{item.name}",
                    getattr(values, item.name),
                    comments[type(values).__name__, item.name],
                )
                for item in dataclasses.fields(values)
            )
    return found


def _comments() -> dict[tuple[str, str], str]:
    """(class, field) -> comment."""
    text = inspect.getsource(recipe_module)
    lines = text.splitlines()

    def meaning(line: int) -> str:
        behind = lines[line].partition("  # ")[2]
        above = lines[line - 1].strip()
        return behind or (above.removeprefix("# ") if above.startswith("# ") else "")

    return {
        (node.name, item.target.id): meaning(item.lineno - 1)
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
