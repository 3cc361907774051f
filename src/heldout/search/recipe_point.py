"""Values of a recipe by dotted key, read and put in: the points of a search over it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from heldout.core.discovery import replaced_by
from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe import PLUGINS, Recipe
from heldout.core.recipe_fields import convert
from heldout.core.search_space import USED, Value

_SECTIONS = ("model", "train")


def value_at(recipe: Recipe, key: str) -> Any:
    """What stands under ``section.key`` or ``regularizers.name.key``; None if not set.

    Under ``regularizers.name.used`` whether the recipe has it. Raises UserError for a key that no
    recipe has, and for parameters of what this recipe lacks.
    """
    section, name, parameter = _split(recipe, key)
    if key.endswith(USED) and parameter:
        return name in getattr(recipe, section)
    if parameter:
        return getattr(recipe, section)[name].get(parameter)
    return getattr(getattr(recipe, section), name)


def with_values(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """A copy with these values under their dotted keys, checked like a fresh recipe.

    A number that is whole becomes an integer where one stood before. What is not ``used`` goes,
    with its parameters; what is comes with those of the recipe, or its defaults.
    """
    for key in sorted(values, key=lambda key: not key.endswith(USED)):
        value = values[key]
        if not key.endswith(USED) and values.get(f"{key.rpartition('.')[0]}{USED}") is False:
            continue
        section, name, parameter = _split(recipe, key)
        if parameter:
            plugins = dict(getattr(recipe, section))
            if not key.endswith(USED):
                replaced = replaced_by(PLUGINS[section], name, parameter)
                before = {k: v for k, v in plugins[name].items() if k not in replaced}
                plugins[name] = {**before, parameter: _like(value, before.get(parameter))}
            elif value:
                plugins.setdefault(name, {})
            else:
                plugins.pop(name, None)
            changed: Any = {section: plugins}
            recipe = replace(recipe, **changed)
        else:
            recipe = recipe.replace(**{section: {name: _of_field(recipe, section, name, value)}})
    return recipe


def is_whole(recipe: Recipe, key: str) -> bool:
    """Whether only whole numbers can stand under the key."""
    before = value_at(recipe, key)
    return isinstance(before, int) and not isinstance(before, bool)


def _of_field(recipe: Recipe, section: str, name: str, value: Value) -> Any:
    fields = getattr(recipe, section)
    if isinstance(getattr(fields, name), tuple | dict):
        raise UserError(f"search.ranges: {section}.{name} holds several values.")
    hint = get_type_hints(type(fields))[name]
    fitting = int(value) if isinstance(value, float) and value.is_integer() else value
    return convert(fitting, hint, f"search.ranges: {section}.{name}")


def _like(value: Value, before: Any) -> Value:
    """A parameter of a plug-in, which tells itself what it takes."""
    is_whole = isinstance(before, int) and not isinstance(before, bool)
    return int(value) if is_whole and float(value).is_integer() else value


def _split(recipe: Recipe, key: str) -> tuple[str, str, str]:
    """Section, name, and parameter of a plug-in (empty for other sections)."""
    section, *rest = key.split(".")
    if section in PLUGINS:
        if len(rest) != 2:
            raise UserError(f"search.ranges: {key} must be {section}.name.parameter.")
        if rest[0] not in getattr(recipe, section) and not key.endswith(USED):
            raise UserError(
                f"search.ranges: {key} is a parameter of what the recipe does not have: add "
                f"[{section}.{rest[0]}], or take the range out."
            )
        return section, rest[0], rest[1]
    known = [
        f"{each}.{item.name}"
        for each in _SECTIONS
        for item in dataclasses.fields(getattr(recipe, each))
    ]
    if section not in _SECTIONS and hasattr(recipe, section):
        raise UserError(
            f"search.ranges: {key}: rows and measurements stay the same in a search, and ranges "
            f"are of {', '.join((*_SECTIONS, *PLUGINS))} alone."
        )
    if key not in known:
        raise UserError(f"search.ranges: unknown recipe key {key!r}{did_you_mean(key, known)}")
    return section, rest[0], ""
