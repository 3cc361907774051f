"""A training row as text, before any tokenizer has seen it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

PARTS = ("train", "validation", "test")
Part = Literal["train", "validation", "test"]
LEAST_TO_SPLIT = 10  # groups of rows that cross-validation still makes sense with


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
        """With the columns that other tools know: text, prompt and completion, or messages."""
        others = {key: value for key, value in asdict(self).items() if key != "messages"}
        roles = [message["role"] for message in self.messages]
        if roles in (["text"], ["prompt", "completion"]) and all(
            message.keys() == {"role", "content"} for message in self.messages
        ):
            return {**{m["role"]: m["content"] for m in self.messages}, **others}
        return {"messages": list(self.messages), **others}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Row":
        """Inverse of ``to_json``; older runs hold messages of role text or prompt."""
        others = {key: value for key, value in entry.items() if key not in _COLUMNS}
        texts = [
            {"role": column, "content": entry[column]} for column in _COLUMNS[1:] if column in entry
        ]
        return cls(messages=tuple(entry.get("messages") or texts), **others)


_COLUMNS = ("messages", "text", "prompt", "completion")
