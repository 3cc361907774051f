"""Values of cells: plain text, or JSON that stands there as text."""

import json
from typing import Any

from heldout.core.errors import UserError
from heldout.data.record import type_words


def text_of(value: Any, name: str, where: str) -> str:
    """The text; nothing where there is none. UserError for what is no text, or no whole one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"{where}: {_quoted(name)} must be text, got {type_words(value)}. Nothing was written."
        )
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: {_quoted(name)} holds half of a character (a lone surrogate). Nothing was "
            "written."
        ) from None
    return value


def _quoted(name: str) -> str:
    """The name of a turn's key has its column in quotes: "messages" 1 content."""
    return name if name.startswith('"') else f'"{name}"'


def json_value(value: Any) -> Any:
    """What a list or object that is written as JSON text stands for; all else as it is."""
    if not _looks_like_json(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def json_type_words(value: Any) -> str:
    """What a value of ``json_value`` is, in words for an error."""
    return "broken JSON text" if _looks_like_json(value) else type_words(value)


def _looks_like_json(value: Any) -> bool:
    return isinstance(value, str) and value.strip()[:1] in ("[", "{")


def without_nulls(value: Any) -> Any:
    """Without the keys that Parquet fills with null where objects of one column differ."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value
