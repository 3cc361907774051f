"""The file system is the registry: one file per regularizer, probe, augmentation, law and recipe.

Listing reads literals from the source and imports nothing, so it needs no torch. Packages of
others add theirs through the entry point group ``heldout.plugins``: an entry ``regularizers`` (or
``probes``, ...) names a package whose files are read the same way.
"""

import ast
import dataclasses
import importlib
import importlib.util
import itertools
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from heldout.core.errors import UserError, did_you_mean

ROOMS = {
    "regularizer": "regularizers",
    "augmentation": "augment",
    "probe": "probes",
    "law": "scaling",
}


@dataclass(frozen=True)
class Entry:
    """One line of ``heldout list``."""

    kind: str
    name: str
    summary: str
    source: str
    cost: str
    module: str = ""
    class_name: str = ""  # of what the module defines
    alternatives: tuple[str, ...] = ()  # parameters of which one is given
    notes: dict[str, str] = dataclasses.field(default_factory=dict)  # For, Cost, Effect of a recipe


def list_entries() -> list[Entry]:
    """All regularizers, augmentations, probes, laws and recipes, without importing any of them."""
    entries = [entry for kind in ROOMS for entry in entries_of(kind)]
    folder = resources.files("heldout") / "recipes"
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            text = file.read_text(encoding="utf-8")
            entries.append(_recipe_entry(file.name.removesuffix(".toml"), text))
    return entries


def _recipe_entry(name: str, text: str) -> Entry:
    notes = header_notes(text)
    cost = notes.get("Cost", "one training run and a short search")
    summary = tomllib.loads(text).get("description", "")
    return Entry("recipe", name, summary, "heldout", cost.removesuffix("."), notes=notes)


def header_notes(text: str) -> dict[str, str]:
    """The comment that a recipe begins with: ``# For: whom``, ``# Cost: what``; a note may go on
    in lines that are indented.
    """
    notes: dict[str, str] = {}
    for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()):
        name, colon, words = line.removeprefix("# ").partition(": ")
        if colon and name.isalpha():
            notes[name] = words.strip()
        elif notes:
            notes[next(reversed(notes))] += f" {line.removeprefix('#').strip()}"
    return notes


@cache
def entries_of(kind: str) -> tuple[Entry, ...]:
    """The plug-ins of one kind, ours first, each kind sorted by name."""
    found: dict[str, Entry] = {}
    for package, path in packages_of(ROOMS[kind]):
        for file in sorted(path.glob("*.py")):
            literals = _literals(file)
            if {"SOURCE", "COST"} <= literals.keys():
                name = file.stem
                if name in found:
                    raise UserError(
                        f"{package}.{name} clashes with {found[name].module}: rename its file."
                    )
                found[name] = Entry(
                    kind,
                    name,
                    literals["__doc__"],
                    literals["SOURCE"],
                    literals["COST"],
                    f"{package}.{name}",
                    literals["class"],
                    tuple(literals.get("ALTERNATIVES", ())),
                )
    return tuple(found.values())


def replaced_by(kind: str, name: str, parameter: str) -> tuple[str, ...]:
    """The parameters of a plug-in in whose place ``parameter`` stands; () of an unknown one."""
    for entry in entries_of(kind):
        if entry.name == name and parameter in entry.alternatives:
            return tuple(each for each in entry.alternatives if each != parameter)
    return ()


def build(kind: str, name: str, parameters: dict[str, Any]) -> Any:
    """Import the named plug-in and construct it; unknown names and parameters are UserErrors."""
    plugin = _class_named(kind, name)
    known = [item.name for item in dataclasses.fields(plugin) if item.init]
    for key in parameters:
        if key not in known:
            raise UserError(f"Unknown parameter {key!r} of {name}{did_you_mean(key, known)}")
    hints = get_type_hints(plugin)
    for key, value in parameters.items():
        _check_type(f"{name}.{key}", value, hints[key])
    try:
        return plugin(**parameters)
    except TypeError as error:
        raise UserError(f"{name}: {error}.") from None


def _class_named(kind: str, name: str) -> type:
    from heldout.core.own_classes import is_own, own_class  # which reads the catalog too

    if is_own(name):
        return own_class(kind, name)
    by_name = {entry.name: entry for entry in entries_of(kind)}
    if name not in by_name:
        raise UserError(f"Unknown {kind} {name!r}{did_you_mean(name, list(by_name))}")
    return plugin_class(by_name[name])


def _check_type(name: str, value: Any, hint: Any) -> None:
    if hint in (float, float | None):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, got {value!r}.")
    elif hint is int and (not isinstance(value, int) or isinstance(value, bool)):
        raise UserError(f"{name} must be a whole number, got {value!r}.")
    elif hint in (bool, str) and not isinstance(value, hint):
        words = "true or false" if hint is bool else "text"
        raise UserError(f"{name} must be {words}, got {value!r}.")


def plugin_class(entry: Entry) -> type:
    """The one public dataclass with a base that the entry's file defines.

    What has no base, such as the evidence that a probe reads, may stand beside it.
    """
    module = importlib.import_module(entry.module)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == entry.module
        and dataclasses.is_dataclass(value)
        and not value.__name__.startswith("_")
    ]
    plugins = [each for each in classes if each.__bases__ != (object,)] or classes
    assert len(plugins) == 1, f"{entry.module} must define one public dataclass, has {plugins}"
    return plugins[0]


def packages_of(room: str) -> Iterator[tuple[str, Path]]:
    """Name and folder of our package of plug-ins, such as ``probes``, then those of others.

    Others announce theirs under the last part of a room's name that has several.
    """
    yield f"heldout.{room}", Path(str(resources.files("heldout") / room.replace(".", "/")))
    from importlib import metadata  # reads of all that is installed: only where ours do not do

    for point in metadata.entry_points(group="heldout.plugins"):
        if point.name == room.rpartition(".")[2]:
            spec = importlib.util.find_spec(point.value)
            if spec and spec.submodule_search_locations:
                yield point.value, Path(spec.submodule_search_locations[0])


def _literals(file: Path) -> dict[str, Any]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    doc = (ast.get_docstring(tree) or "").strip().split("\n")[0]
    found: dict[str, Any] = {"__doc__": doc, "class": ""}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found["class"] = node.name if node.bases else found["class"] or node.name
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("SOURCE", "COST", "ALTERNATIVES"):
                found[name] = ast.literal_eval(node.value)
    return found
