"""What of a run can be sent to people who may not see its data: figures, without text or names.

What could hold text of rows is left out by its place, not by what it says: samples, groups, names
of model, data and run, messages on the data, and every text in the recipe that is no choice of a
few. Sentences that are left lose what is quoted, paths, and the run's own names.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.recipe import DEFAULT, Recipe, recipe_names
from heldout.core.run import Run
from heldout.core.secrets import without_secrets
from heldout.report.summary import RunSummary

HIDDEN = "[not shown]"
_ENVIRONMENT = (
    *("versions", "hardware", "platform", "device", "threads", "precision", "side_by_side"),
)
_DATA = ("mode", "rows", "groups", "tokens", "sha256_parts", "dropped", "duplicates")
_STATUS = ("state", "started", "updated", "seconds", "peak_gb")
_ON_DATA = ("data", "groups", "recipe")  # checks whose messages are about columns and files
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)'[^']*'(?!\w)")
_PATH = re.compile(
    r"(?<![\w/])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s,;:)]+"
    r"|[^\s\"'(]+\.(?:jsonl?|csv|tsv|txt|parquet|py|toml|safetensors|gguf|html|md|gz|zip)\b"
)
_LEAST_NAME = 4  # characters: what is shorter stands in other words
# Names of files and folders that say nothing, and stand in the page's own sentences.
_COMMON = (
    *("answer", "answers", "base", "best", "chat", "check", "checkpoint", "completion", "corpus"),
    *("data", "dataset", "default", "eval", "full", "home", "last", "lora", "media", "messages"),
    *("model", "models", "plain", "private", "prompt", "prompts", "question", "rows", "runs"),
    *("sample", "samples", "simple", "split", "test", "text", "texts", "train", "training"),
    *("user", "users", "validation", "work"),
)


def redacted(run: Run, summary: RunSummary) -> RunSummary:
    """The summary of ``run`` without texts, paths and names."""
    names = sorted(set(_own_names(run, summary)), key=len, reverse=True)
    clean = partial(_clean, [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)") for name in names])
    kept = replace(
        summary,
        name="run",
        status=_only(summary.status, _STATUS),
        recipe=None,
        environment=_only(summary.environment, _ENVIRONMENT),
        data=_only(summary.data, _DATA),
        checks=tuple(
            replace(each, message="" if each.name in _ON_DATA else each.message)
            for each in summary.checks
        ),
        samples=(),
        documents={},
    )
    kept = _mapped(kept, clean)
    return replace(
        kept,
        recipe=None if summary.recipe is None else _recipe(summary.recipe),
        documents={key: _without_groups(each) for key, each in summary.documents.items()},
        is_redacted=True,
    )


def _only(table: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: table[name] for name in names if name in table}


def _without_groups(losses: DocumentLosses) -> DocumentLosses:
    """A group may be named after a person: numbers stand for the names."""
    _, numbers_D = np.unique(losses.groups_D, return_inverse=True)
    return replace(losses, groups_D=numbers_D.astype(str))


def _clean(names: list[re.Pattern[str]], text: str) -> str:
    for pattern in (_QUOTED, _PATH, *names):
        text = pattern.sub(HIDDEN, text)
    return without_secrets(text)


def without_names(text: str) -> str:
    """A sentence of a verdict without what it quotes, paths and passwords."""
    return _clean([], text)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A copy with every text in it changed; keys, which are ours, stay."""
    if isinstance(value, str):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        found = copy.copy(value)
        for field in fields(value):
            object.__setattr__(found, field.name, _mapped(getattr(value, field.name), change))
        return found
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_mapped(each, change) for each in value)
    return value


def _recipe(recipe: Recipe) -> Recipe:
    """Numbers, switches and choices of a few; another text is hidden."""
    found = copy.copy(recipe)
    known = recipe.name in (*recipe_names(), DEFAULT)
    object.__setattr__(found, "name", recipe.name if known else HIDDEN)
    for item in fields(recipe):
        section = getattr(recipe, item.name)
        if is_dataclass(section):
            hints = get_type_hints(type(section))
            shown: Any = copy.copy(section)
            for field in fields(section):
                value = getattr(section, field.name)
                if get_origin(hints[field.name]) is not Literal and value != field.default:
                    object.__setattr__(shown, field.name, _hidden(value))
            object.__setattr__(found, item.name, shown)
        elif isinstance(section, dict):
            shown = {
                name: {key: _hidden(value) for key, value in parameters.items()}
                for name, parameters in section.items()
            }
            object.__setattr__(found, item.name, shown)
    return found


def _hidden(value: Any) -> Any:
    return HIDDEN if any(True for _ in _texts(value)) else value


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value that are not empty; keys of tables are ours, or choices of a few."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _texts(each)


def _own_names(run: Run, summary: RunSummary) -> Iterator[str]:
    """What the user has named: the run, model and data, and texts of the recipe."""
    given = [
        str(run.folder.resolve()),
        summary.environment.get("model"),
        summary.data.get("source"),
    ]
    given.append(summary.environment.get("from_scratch"))
    if summary.recipe is not None:
        own = vars(summary.recipe).values()
        given += [text for section in own for text in _texts(_plain(section))]
    for text in given:
        if not isinstance(text, str):
            continue
        for name in {text, Path(text).name, Path(text).stem, *text.split(":")}:
            if len(name) >= _LEAST_NAME and name.lower() not in _common_words():
                yield name


def _plain(section: Any) -> Any:
    return vars(section) if is_dataclass(section) and not isinstance(section, type) else section


def _common_words() -> frozenset[str]:
    """Words that say nothing of the user's, and that the page's own sentences use."""
    found: set[str] = {*recipe_names(), DEFAULT, *_COMMON}
    for item in fields(Recipe()):
        section = getattr(Recipe(), item.name)
        if is_dataclass(section):
            for hint in get_type_hints(type(section)).values():
                found |= {str(each) for each in get_args(hint) if get_origin(hint) is Literal}
            found |= {value for value in vars(section).values() if isinstance(value, str)}
    return frozenset(word.lower() for word in found)
