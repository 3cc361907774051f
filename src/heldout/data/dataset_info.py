"""LLaMA-Factory's ``dataset_info.json``: which file of a folder is which data set, and its columns.

https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError, did_you_mean

NAME = "dataset_info.json"
_PLACES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_ROLES = {  # key under "columns" -> our column, for alpaca and for sharegpt
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "messages": "conversations",
    "system": "system",
    "tools": "tools",
    "chosen": "chosen",
    "rejected": "rejected",
    "kto_tag": "kto_tag",
    "images": "images",
    "videos": "videos",
    "audios": "audios",
}
_TAGS = {  # key under "tags" -> its default, and what the turn says in our files
    "user_tag": ("human", "human"),
    "assistant_tag": ("gpt", "gpt"),
    "observation_tag": ("observation", "observation"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}


@dataclass(frozen=True)
class ListedSet:
    """A data set of the list."""

    path: Path  # a file or folder
    convert: Callable[[dict[str, Any]], dict[str, Any]]  # its fields under our names of columns


def is_dataset_info(path: Path) -> bool:
    """Whether a file is such a list; ``datasets`` has files of the same name."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and any(
        isinstance(entry, dict) and set(_PLACES) & entry.keys() for entry in table.values()
    )


def listed_set(path: Path, wanted: str, source: str) -> tuple[str, ListedSet]:
    """(name, data set) of a list; ``wanted`` may be empty where there is only one.

    Raises UserError for another name, and for a data set that is not in the folder.
    """
    table = json.loads(path.read_bytes())
    names = list(table)
    if not wanted and len(names) > 1:
        raise UserError(
            f"{source} lists {len(names)} data sets ({', '.join(names[:8])}"
            f"{', ...' if names[8:] else ''}): name one, as in {source}:{names[0]}."
        )
    name = wanted or names[0]
    if name not in table:
        raise UserError(f"{source} lists no data set {name!r}{did_you_mean(name, names)}")
    entry = table[name]
    file = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(file, str):
        raise UserError(
            f"{path} {name!r}: file_name must name a file in the folder; load data sets of a hub "
            "by their own name."
        )
    found = path.parent / file
    if not found.exists():
        raise UserError(f"{path} {name!r}: file_name {file!r} is not in the folder.")
    return name, ListedSet(found, _conversion(entry))


def _conversion(entry: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    named = entry.get("columns") or {}
    columns = {column: _ROLES[key] for key, column in named.items() if key in _ROLES and column}
    tags = entry.get("tags") or {}
    speakers = {tags.get(key, usual): ours for key, (usual, ours) in _TAGS.items()}
    role_tag, content_tag = tags.get("role_tag", "from"), tags.get("content_tag", "value")

    def turn(value: Any) -> Any:
        if not isinstance(value, dict) or role_tag not in value:
            return value
        others = {k: v for k, v in value.items() if k not in (role_tag, content_tag)}
        speaker = value[role_tag]
        told = speakers.get(speaker, speaker) if isinstance(speaker, str) else speaker
        return {"from": told, "value": value.get(content_tag), **others}

    def convert(fields: dict[str, Any]) -> dict[str, Any]:
        found = {columns.get(column, column): value for column, value in fields.items()}
        if entry.get("formatting", "alpaca") == "sharegpt":
            for column in ("conversations", "chosen", "rejected"):
                value = found.get(column)
                found |= {column: [turn(each) for each in value]} if isinstance(value, list) else {}
                found |= {column: turn(value)} if isinstance(value, dict) else {}
        return found

    return convert
