"""Whether a model's files are those that were there before, without reading all of large ones."""

import hashlib
from pathlib import Path

from heldout.lm.source import TOKENIZER_FILES, find_source, read_json

_NAMES = {"config.json", "adapter_config.json", *TOKENIZER_FILES}
_KINDS = {".jinja", ".safetensors", ".gguf"}
_PIECE, _NUM_PIECES = 2**16, 64


def fingerprint(target: str) -> str:
    """SHA-256 of weights, configuration and tokenizer; "" of a Hub id.

    Of each file its name, size and up to 64 spaced pieces of 64 KiB: a training changes every
    weight, so that pieces tell, but a number that was changed by hand in a larger file may not
    show. Of an adapter its base too, where that is a folder. Raises UserError where a path holds
    no model.
    """
    path = find_source(target).path
    if path is None:
        return ""
    files = [path] if path.is_file() else sorted(path.iterdir())
    found = hashlib.sha256()
    for file in files:
        if not (file.name in _NAMES or file.suffix in _KINDS) or not file.is_file():
            continue
        size = file.stat().st_size
        found.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for start in range(0, size, max(_PIECE, -(-size // _NUM_PIECES))):
                content.seek(start)
                found.update(content.read(_PIECE))
    if (config := path / "adapter_config.json").is_file():
        base = read_json(config).get("base_model_name_or_path")
        if isinstance(base, str) and Path(base).is_dir() and Path(base) != path:
            found.update(fingerprint(base).encode())
    return found.hexdigest()
