"""What the shell completes after an option: names and keys, with their meanings.

Every command imports this, so what it asks is imported when the shell asks.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from heldout.core.discovery import Entry

Candidates = list[tuple[str, str]]  # what it may be, and its meaning


def recipes(incomplete: str) -> Candidates:
    """Ready recipes; files are the shell's own to complete."""
    from heldout.core.discovery import list_entries

    ready = (entry for entry in list_entries() if entry.kind == "recipe")
    return _beginning(incomplete, ((entry.name, entry.summary) for entry in ready))


def trackers(incomplete: str) -> Candidates:
    """Of ``--tracker``."""
    names = ("tensorboard", "trackio", "wandb", "mlflow")
    return _beginning(incomplete, ((name, "") for name in names))


def catalog(incomplete: str) -> Candidates:
    """Kinds and names of parts; keys of a recipe once a section is begun."""
    from heldout.core.discovery import ROOMS, list_entries
    from heldout.core.recipe_keys import recipe_keys

    names = [(kind, "") for kind in (*ROOMS, "recipe", "keys")]
    names += [(entry.name, entry.summary) for entry in list_entries()]
    if "." in incomplete:
        names += [(key.name, key.meaning) for keys in recipe_keys().values() for key in keys]
    return _beginning(incomplete, names)


def settings(incomplete: str) -> Candidates:
    """``KEY=`` of a recipe; behind one whose words are known, ``KEY=VALUE``."""
    key, equals, _ = incomplete.partition("=")
    if equals:
        return _beginning(incomplete, ((f"{key}={value}", "") for value in _values(key)))
    return _beginning(incomplete, _keys(incomplete))


def _keys(incomplete: str) -> Iterator[tuple[str, str]]:
    from heldout.core.discovery import entries_of
    from heldout.core.recipe import PLUGINS
    from heldout.core.recipe_keys import recipe_keys

    for keys in recipe_keys().values():
        for key in keys:
            yield f"{key.name}=", key.meaning
    for section, kind in PLUGINS.items():
        for entry in entries_of(kind):
            name = f"{section}.{entry.name}"
            yield f"{name}=", entry.summary
            if incomplete.startswith(name):
                for parameter in _parameters(entry):
                    yield f"{name}.{parameter}=", entry.summary


def _parameters(entry: "Entry") -> list[str]:
    """Fields of the class of a part, read without an import of it."""
    import ast
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec(entry.module)
    assert spec is not None
    assert spec.origin is not None
    return [
        field.target.id
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == entry.class_name
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


def _values(key: str) -> tuple[str, ...]:
    """The words that a key may have; of a technique true and false."""
    from heldout.core.recipe import PLUGINS, Recipe

    section, _, name = key.partition(".")
    if section in PLUGINS:
        return () if "." in name else ("true", "false")
    kind = get_type_hints(Recipe).get(section)
    hint = get_type_hints(kind).get(name) if kind else None
    if hint is bool:
        return ("true", "false")
    return get_args(hint) if get_origin(hint) is Literal else ()


def _beginning(incomplete: str, names: Iterable[tuple[str, str]]) -> Candidates:
    return [(name, meaning) for name, meaning in names if name.startswith(incomplete)]
