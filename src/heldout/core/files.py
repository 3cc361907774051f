"""Files that are written whole or not at all."""

from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text beside ``path``, then put it in place. Returns ``path``."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)
