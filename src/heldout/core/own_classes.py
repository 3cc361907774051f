"""Regularizers and augmentations given as objects: how a recipe names them and finds them again.

One of the catalog goes by its name. A class of one's own goes by where it is defined, such as
``my_ideas:Halving``; a recipe that names it works where that class is there.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from heldout.core.discovery import entries_of
from heldout.core.errors import UserError

_GIVEN: dict[str, type] = {}  # classes that objects of this process had


def is_own(name: str) -> bool:
    """Whether a name of a recipe means a class of the user's own."""
    return ":" in name


def absent(names: Iterable[str]) -> list[str]:
    """Those of one's own whose class is not there, so that finding it would run a module."""
    return [name for name in names if is_own(name) and _loaded(name) is None]


def own_class(kind: str, name: str) -> type:
    """The class; its module is imported where it has not been. UserError where it is absent."""
    module = name.partition(":")[0]
    if _loaded(name) is None:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module of others raises
            raise UserError(
                f"The {kind} {name} is absent here ({error}): define it, and give it again."
            ) from None
    found = _loaded(name)
    if found is None:
        raise UserError(f"The {kind} {name} is absent here: {module} has no such class.")
    return found


def as_parameters(kind: str, base: type, objects: Sequence[Any], argument: str) -> dict[str, Any]:
    """Name -> parameters, as a recipe keeps them; raises UserError for what it cannot keep."""
    found: dict[str, dict[str, Any]] = {}
    for each in objects:
        if not isinstance(each, base) or not dataclasses.is_dataclass(each):
            raise UserError(
                f"{argument} must hold objects of classes on {base.__name__} that are dataclasses, "
                f"got {each!r}."
            )
        name = _name_of(kind, type(each))
        if name in found:
            raise UserError(f"{argument} holds two of {name}: give one.")
        found[name] = _parameters_of(each, argument)
    return found


def _name_of(kind: str, own: type) -> str:
    for entry in entries_of(kind):
        if (entry.module, entry.class_name) == (own.__module__, own.__name__):
            return entry.name
    name = f"{own.__module__}:{own.__qualname__}"
    _GIVEN[name] = own
    return name


def _parameters_of(value: Any, argument: str) -> dict[str, Any]:
    found = {}
    for item in dataclasses.fields(value):
        held = getattr(value, item.name)
        if not item.init or held is None:
            continue
        if item.default_factory is not dataclasses.MISSING:
            usual = item.default_factory()
        else:
            usual = item.default
        if type(held) is type(usual) and held == usual:
            continue
        if not _is_plain(held):
            raise UserError(
                f"{argument}: {type(value).__name__}({item.name}=...) holds a "
                f"{type(held).__name__}, which a run folder cannot keep: give a text, a number or "
                "a list of them, such as the name of a folder."
            )
        found[item.name] = list(held) if isinstance(held, tuple) else held
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | bool)


def _loaded(name: str) -> type | None:
    if name in _GIVEN:
        return _GIVEN[name]
    module, _, path = name.partition(":")
    value: Any = sys.modules.get(module)
    for part in path.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, type) and dataclasses.is_dataclass(value) else None
