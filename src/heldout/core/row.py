"""A training row as text, before any tokenizer has seen it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PARTS = ("train", "validation", "test")
Part = Literal["train", "validation", "test"]
LEAST_TO_SPLIT = 10  # groups of rows that cross-validation still makes sense with

Message = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One document, prompt with completion, or conversation.

    ``messages`` holds ``{"role", "content"}``; a plain text is one message of role ``text``, and a
    prompt with completion is ``prompt`` then ``completion``, so that every format is one list.
    Messages of a conversation may also have ``reasoning_content``, ``tool_calls`` (as transformers
    takes them, arguments as objects), ``tool_call_id`` and ``name``. The loss counts ``text``,
    ``completion`` and ``assistant`` messages only, and of the latter none with ``train`` false and,
    where there is a ``train_detail``, only those characters of the content.
    """

    index: int  # position in the source, counted from 0
    messages: tuple[Message, ...]
    group: str  # rows of one group never straddle the parts of a split
    source: str = ""
    tools: tuple[dict[str, Any], ...] = ()  # that the model may call, for the chat template
    where: str = field(default="", compare=False)  # file and line, for messages to the user
    template_arguments: dict[str, Any] = field(default_factory=dict)  # for the chat template

    @property
    def kind(self) -> Literal["text", "completion", "conversation"]:
        role = self.messages[0]["role"]
        if role == "text":
            return "text"
        return "completion" if role == "prompt" else "conversation"

    @property
    def text(self) -> str:
        """All that the messages say, joined by newlines: what duplicates are searched in."""
        return "\n".join(said(message) for message in self.messages)

    @property
    def place(self) -> str:
        """The row as messages to the user name it."""
        return self.where or f"Row {self.index}"

    def to_json(self) -> dict[str, Any]:
        """With the columns that other tools know: text, prompt and completion, or messages."""
        others: dict[str, Any] = {
            "index": self.index,
            "group": self.group,
            "source": self.source,
            **({"tools": list(self.tools)} if self.tools else {}),
            **({_ARGUMENTS: self.template_arguments} if self.template_arguments else {}),
            **({"where": self.where} if self.where else {}),
        }
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
        others["tools"] = tuple(entry.get("tools", ()))
        others["template_arguments"] = others.pop(_ARGUMENTS, {})
        return cls(messages=tuple(entry.get("messages") or texts), **others)


_ARGUMENTS = "chat_template_kwargs"  # as TRL calls the column
_COLUMNS = ("messages", "text", "prompt", "completion")


def said(message: Mapping[str, Any]) -> str:
    """Reasoning, content and tool calls of a message, joined by newlines."""
    if message.keys() == _PLAIN:
        return str(message["content"])
    parts = [message.get("reasoning_content", ""), message["content"]]
    parts += [call_text(call) for call in message.get("tool_calls", ())]
    return "\n".join(part for part in parts if part)


_PLAIN = {"role", "content"}


def call_text(call: Mapping[str, Any]) -> str:
    """Name and arguments of a tool call as JSON."""
    function = call["function"]
    return json.dumps(
        {"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False
    )


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether the loss counts the message, or some of it."""
    if message["role"] not in ("text", "completion", "assistant"):
        return False
    return message.get("train", True) is not False


def learned_texts(row: Row) -> list[str]:
    """What of a row the loss counts, message by message, as text; tool calls as JSON."""
    found = []
    for message in filter(is_learned, row.messages):
        details = message.get("train_detail")
        if details:
            spans = (
                (span["begin_offset"], span["end_offset"] + 1) for span in details if span["train"]
            )
            found.append("".join(message["content"][begin:end] for begin, end in spans))
        else:
            found.append(said(message))
    return found
