"""Whether a model's files are those that were there before, without reading all of large ones."""

import hashlib

from heldout.lm.source import find_source

_KINDS = {".json", ".jinja", ".model", ".safetensors", ".gguf"}
_PIECE, _NUM_PIECES = 2**16, 64


def fingerprint(target: str) -> str:
    """SHA-256 of names, sizes and up to 64 spaced pieces of each file; "" of a Hub id.

    A training changes every weight, so that pieces tell; one number that was changed by hand in a
    file of more than 4 MiB may not show. Raises UserError where a path holds no model.
    """
    path = find_source(target).path
    if path is None:
        return ""
    files = [path] if path.is_file() else sorted(path.iterdir())
    found = hashlib.sha256()
    for file in files:
        if file.suffix not in _KINDS or not file.is_file():
            continue
        size = file.stat().st_size
        found.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for start in range(0, size, max(_PIECE, -(-size // _NUM_PIECES))):
                content.seek(start)
                found.update(content.read(_PIECE))
    return found.hexdigest()
