"""What of a run goes to the Hub, or has gone there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from heldout.core.errors import UserError

SCHEMA = "heldout.push/1"
CardCheck = Literal["passed", "skipped"]


@dataclass(frozen=True)
class PushedFile:
    """A file by its name there: one that lies here as it is, or a content made for the upload."""

    name: str
    content: bytes | Path

    @property
    def num_bytes(self) -> int:
        whole = self.content
        return len(whole) if isinstance(whole, bytes) else whole.stat().st_size

    def read(self) -> bytes:
        """All of it; weights may be large."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Pushed:
    """The files and their place; ``url`` is empty where nothing was uploaded.

    ``left_out`` are files of ``best/`` that are of no kind that is uploaded. ``card_check`` is what
    the Hub says of the card: skipped where it was not asked.
    """

    repository: str  # ORG/NAME
    is_private: bool
    base: str  # ORG/NAME, or empty
    files: tuple[PushedFile, ...]
    left_out: tuple[str, ...]
    url: str = ""
    card_check: CardCheck = "skipped"

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    @property
    def card(self) -> str:
        """The model card, README.md there."""
        return next(f.read().decode("utf-8") for f in self.files if f.name == "README.md")

    def to_json(self) -> dict[str, Any]:
        """``heldout.push/1``; see the shipped JSON Schema."""
        return {
            "schema": SCHEMA,
            "repository": self.repository,
            "private": self.is_private,
            "base": self.base,
            "files": [{"name": file.name, "num_bytes": file.num_bytes} for file in self.files],
            "num_bytes": self.num_bytes,
            "left_out": list(self.left_out),
            "url": self.url,
            "card_check": self.card_check,
            "card": self.card,
        }


def refuse_telling(files: tuple[PushedFile, ...], private: tuple[str, ...]) -> None:
    """UserError where a file that is not of weights holds one of these texts, such as a path."""
    for file in files:
        if file.name.endswith(".safetensors"):
            continue
        whole = file.read()
        for text in private:
            if text.encode() in whole:
                raise UserError(
                    f"{file.name} holds {text}, a path of this machine: take it out of best/ "
                    "first. Nothing was uploaded."
                )
