"""The files of ``best/`` that others need, by kind, without what only this machine can use.

Everything else in the folder stays here: optimizer states, code, rows, pages.
"""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.results.push import PushedFile

_CONFIGS = (
    *("config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json"),
)
_KINDS = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("adapter_model.safetensors", "quantized_base.json", *_CONFIGS),
    *("tokenizer.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
# Of the machine where the files were written.
_LOCAL = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
_BASE = "base_model_name_or_path"


def hub_files(best: Path, base: str) -> tuple[tuple[PushedFile, ...], tuple[str, ...]]:
    """Files to upload, and the names of those that are left out.

    ``base`` is what an adapter's configuration will name. Raises UserError where weights or the
    tokenizer are missing, or a configuration is no JSON.
    """
    found: list[PushedFile] = []
    left_out: list[str] = []
    for path in sorted(each for each in best.rglob("*") if each.is_file()):
        name = path.relative_to(best).as_posix()
        if name == "README.md":
            continue  # a card is written for the upload
        if path.is_symlink() or not any(_is_of(name, kind) for kind in _KINDS):
            left_out.append(name)
        elif name in _CONFIGS:
            found.append(PushedFile(name, _portable(path, base)))
        else:
            found.append(PushedFile(name, path))
    names = {file.name for file in found}
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{best} has no weights (.safetensors): train the run to its end first.")
    if "tokenizer_config.json" not in names:
        raise UserError(f"{best} has no tokenizer_config.json: save the tokenizer there.")
    return tuple(found), tuple(left_out)


def _is_of(name: str, kind: str) -> bool:
    return name.count("/") == kind.count("/") and fnmatch(name, kind)


def _portable(path: Path, base: str) -> bytes:
    """A configuration without what names this machine; an adapter's names its base on the Hub."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise UserError(f"{path} holds no JSON object: put it back as it was.")
    kept = _without_places(table)
    if path.name == "adapter_config.json":
        kept[_BASE] = base
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_places(each)
            for key, each in value.items()
            if key not in _LOCAL and not _is_place(each)
        }
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    return value


def _is_place(value: Any) -> bool:
    """An absolute path."""
    return isinstance(value, str) and "\n" not in value and value.startswith(("/", "~/", "\\\\"))
