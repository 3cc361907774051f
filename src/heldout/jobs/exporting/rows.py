"""The rows of a run in the columns that another trainer reads; its test rows stay sealed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heldout.core.row import Row
from heldout.jobs.exporting.recipe_to_export import Kind, RecipeToExport

_FILES = {"train": "train.jsonl", "validation": "validation.jsonl"}
_MLX_FILES = {"train": "train.jsonl", "validation": "valid.jsonl"}
_OURS = ("index", "group", "source", "where")
# Of dataset_info.json. Its formatting "openai" would write a system prompt into each row.
_COLUMNS: dict[Kind, dict[str, Any]] = {
    "text": {"columns": {"prompt": "text"}},
    "completion": {"columns": {"prompt": "prompt", "response": "completion"}},
    "conversation": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
            "observation_tag": "tool",
        },
    },
}


def write_rows(source: RecipeToExport, trainer: str, folder: Path) -> None:
    """train and validation of a run, as JSON Lines; nothing of a recipe, which has none."""
    files = _MLX_FILES if trainer == "mlx" else _FILES
    if trainer == "llama-factory":
        listed = {
            part: {"file_name": name, **_COLUMNS[source.kind]} for part, name in files.items()
        }
        (folder / "dataset_info.json").write_text(json.dumps(listed, indent=2), encoding="utf-8")
    if source.run is None:
        return
    end = _end_of_text(source) if trainer == "llama-factory" and source.kind == "completion" else ""
    for part, name in files.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            for row in _rows(source, part):
                file.write(json.dumps(_written(row, end), ensure_ascii=False) + "\n")


def _rows(source: RecipeToExport, part: str) -> Iterator[Row]:
    assert source.run is not None
    return source.run.read_rows(part)


def _written(row: Row, end: str) -> dict[str, Any]:
    entry = {key: value for key, value in row.to_json().items() if key not in _OURS}
    if end and "completion" in entry:
        entry["completion"] += end
    return entry


def _end_of_text(source: RecipeToExport) -> str:
    """What ends an answer, which LLaMA-Factory adds under a template alone."""
    from heldout.lm.load import load_tokenizer

    assert source.run is not None
    return str(load_tokenizer(str(source.run.best)).eos_token or "")
