"""Numbers of a recipe by dotted key, read and put in: the points of a search over it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe import PLUGINS, Recipe

_SECTIONS = ("model", "train")


def value_at(recipe: Recipe, key: str) -> Any:
    """What stands under ``section.key`` or ``regularizers.name.key``; None if not set.

    Raises UserError for a key that no recipe has, and for parameters of what this recipe lacks.
    """
    section, name, parameter = _split(recipe, key)
    if parameter:
        return getattr(recipe, section)[name].get(parameter)
    return getattr(getattr(recipe, section), name)


def with_values(recipe: Recipe, values: Mapping[str, float]) -> Recipe:
    """A copy with these numbers under their dotted keys, checked like a fresh recipe.

    A number that is whole becomes an integer where one stood before.
    """
    for key, value in values.items():
        section, name, parameter = _split(recipe, key)
        before = value_at(recipe, key)
        if isinstance(before, bool | str | tuple | dict):
            raise UserError(f"search.grids: {key} is not a number, got {before!r} in the recipe.")
        fitting = int(value) if isinstance(before, int) and float(value).is_integer() else value
        if isinstance(before, int) and isinstance(fitting, float) and not parameter:
            raise UserError(f"search.grids: {key} must be whole numbers, got {value}.")
        if parameter:
            plugins = getattr(recipe, section)
            changed: Any = {section: {**plugins, name: {**plugins[name], parameter: fitting}}}
            recipe = replace(recipe, **changed)
        else:
            recipe = recipe.replace(**{section: {name: fitting}})
    return recipe


def _split(recipe: Recipe, key: str) -> tuple[str, str, str]:
    """Section, name, and parameter of a plug-in (empty for other sections)."""
    section, *rest = key.split(".")
    if section in PLUGINS:
        if len(rest) != 2:
            raise UserError(f"search.grids: {key} must be {section}.name.parameter.")
        if rest[0] not in getattr(recipe, section):
            raise UserError(
                f"search.grids: {key} is a parameter of what the recipe does not have: add "
                f"[{section}.{rest[0]}], or take the grid out."
            )
        return section, rest[0], rest[1]
    known = [
        f"{each}.{item.name}"
        for each in _SECTIONS
        for item in dataclasses.fields(getattr(recipe, each))
    ]
    if section not in _SECTIONS and hasattr(recipe, section):
        raise UserError(
            f"search.grids: {key}: rows and measurements stay the same in a search, and grids are "
            f"of {', '.join((*_SECTIONS, *PLUGINS))} alone."
        )
    if key not in known:
        raise UserError(f"search.grids: unknown recipe key {key!r}{did_you_mean(key, known)}")
    return section, rest[0], ""
