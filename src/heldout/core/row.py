"""A training row as text, before any tokenizer has seen it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

PARTS = ("train", "validation", "test")
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Row:
    """One document, prompt with completion, or conversation.

    ``messages`` holds ``{"role", "content"}``; a plain text is one message of role ``text``, and a
    prompt with completion is ``prompt`` then ``completion``, so that every format is one list.
    The loss counts ``text``, ``completion`` and ``assistant`` content only.
    """

    index: int  # position in the source, counted from 0
    messages: tuple[dict[str, str], ...]
    group: str  # rows of one group never straddle the parts of a split
    source: str = ""

    @property
    def kind(self) -> Literal["text", "completion", "conversation"]:
        role = self.messages[0]["role"]
        if role == "text":
            return "text"
        return "completion" if role == "prompt" else "conversation"

    @property
    def text(self) -> str:
        """All content joined by newlines: what duplicates are searched in."""
        return "\n".join(message["content"] for message in self.messages)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "messages": list(self.messages)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Row":
        return cls(**{**entry, "messages": tuple(entry["messages"])})
