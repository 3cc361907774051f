"""Turns of a conversation, from whichever tool wrote them, to messages as ``Row`` holds them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from heldout.core.errors import UserError, did_you_mean
from heldout.core.row import Message, is_learned
from heldout.data.cells import json_type_words, json_value, text_of
from heldout.data.tools import calls_of_text, calls_of_turn
from heldout.data.turn_masks import (
    DETAILS,
    HIDDEN_IF_TRUE,
    LEARNED_IF_TRUE,
    learned_keys,
    mask_hides,
)

SPEAKERS = {  # names of the speaker in messages and sharegpt -> role
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "系统": "system",
    "用户": "user",
    "助手": "assistant",
}
REASONING = ("reasoning_content", "reasoning", "thinking")  # keys of a turn; the first is Row's
_KNOWN_KEYS = {
    *("role", "from", "content", "value", "name", "tool_calls", "function_call", "tool_call_id"),
    *(*REASONING, *LEARNED_IF_TRUE, *HIDDEN_IF_TRUE, "mask", *DETAILS),
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("thinking", "reasoning")


def conversation(value: Any, column: str, where: str) -> tuple[Message, ...]:
    """Turns as {role, content} or {from, value}, whichever the column is called.

    Raises UserError, which names the turn, for what cannot be read.
    """
    turns = json_value(value)
    if not isinstance(turns, list):
        raise _not_turns(json_type_words(turns), column, where)
    turns = [json_value(turn) for turn in turns]
    for turn in turns:
        if not isinstance(turn, dict):
            raise _not_turns(f"{json_type_words(turn)} in it", column, where)
    # Parquet fills keys that other turns have with null.
    turns = [{key: each for key, each in turn.items() if each is not None} for turn in turns]
    names = [f'"{column}" {number}' for number in range(1, len(turns) + 1)]
    roles = [_role(turn, name, where) for turn, name in zip(turns, names, strict=True)]
    hides = mask_hides(turns, [role == "assistant" for role in roles], where)
    return tuple(
        _message(turn, role, name, where, hides)
        for turn, role, name in zip(turns, roles, names, strict=True)
    )


def unknown_keys(value: Any) -> set[str]:
    """Keys of turns that hold something and are not read."""
    turns = json_value(value)
    return {
        str(key)
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict)
        for key in turn.keys() - _KNOWN_KEYS
        if turn[key] not in (None, "", [], {})
    }


def with_system(
    turns: tuple[Message, ...], system: str, column: str, where: str
) -> tuple[Message, ...]:
    """The turns behind the text of a ``system`` column, where it has any."""
    if not system.strip():
        return turns
    if not turns or turns[0]["role"] != "system":
        return ({"role": "system", "content": system}, *turns)
    if turns[0]["content"].strip() == system.strip():
        return turns
    raise UserError(
        f'{where}: "{column}" and the system message of the conversation differ: leave one of them '
        "out. Nothing was written."
    )


def note_faults(turns: Sequence[Message], note: Callable[[str], None]) -> None:
    """Tell ``note``, in words said of one row, what leaves nothing to learn."""
    roles = [turn["role"] for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in roles:
        note("has no assistant message")
    elif spoken[0] != "user":
        note("does not start with a user message (a system message may stand before it)")
    elif any(_is_empty(turn) for turn in turns if turn["role"] == "assistant"):
        note("has an empty assistant message")
    elif not any(map(is_learned, turns)):
        note("has no assistant message that is not masked")


def _is_empty(turn: Message) -> bool:
    return not turn["content"].strip() and not turn.get("tool_calls")


def _keys(turn: dict[str, Any]) -> tuple[str, str]:
    return ("from", "value") if "from" in turn else ("role", "content")


def _role(turn: dict[str, Any], name: str, where: str) -> str:
    speaker_key, content_key = _keys(turn)
    calls = turn.get("tool_calls") or turn.get("function_call")
    speaker = turn.get(speaker_key)
    is_assistant = isinstance(speaker, str) and SPEAKERS.get(speaker.lower()) == "assistant"
    if speaker is None or (content_key not in turn and not calls and not is_assistant):
        raise UserError(
            f"{where}: {name} must have {speaker_key} and {content_key}, got "
            f"{', '.join(map(str, turn)) or 'nothing'}. Nothing was written."
        )
    if not isinstance(speaker, str) or speaker.lower() not in SPEAKERS:
        near = did_you_mean(str(speaker), list(SPEAKERS))
        raise UserError(f"{where}: {name} has {speaker_key} {speaker!r}{near} Nothing was written.")
    if calls and not is_assistant:
        raise UserError(
            f"{where}: {name} has calls of a function, which only an assistant makes, and is of "
            f"{speaker!r}. Nothing was written."
        )
    return SPEAKERS[speaker.lower()]


def _message(turn: dict[str, Any], role: str, name: str, where: str, hides: bool) -> Message:
    speaker_key, content_key = _keys(turn)
    content, reasoning = _content(turn.get(content_key), f"{name} {content_key}", role, where)
    calls = calls_of_turn(turn, name, where)
    if turn[speaker_key].lower() == "function_call":
        calls, content = calls_of_text(content, f"{name} {content_key}", where), ""
    message: Message = {"role": role, "content": content}
    if role == "assistant":
        for key in REASONING:
            reasoning = reasoning or text_of(turn.get(key), f"{name} {key}", where)
        message |= {"reasoning_content": reasoning} if reasoning else {}
        message |= {"tool_calls": calls} if calls else {}
        message |= learned_keys(turn, content, name, where, hides)
    named = {key: turn[key] for key in ("name", "tool_call_id") if turn.get(key)}
    return message | {key: text_of(each, f"{name} {key}", where) for key, each in named.items()}


def _content(value: Any, name: str, role: str, where: str) -> tuple[str, str]:
    """Text and reasoning of a content that is a text or a list of parts."""
    if role == "tool" and not isinstance(value, str) and not _are_parts(value):
        return json.dumps(value, ensure_ascii=False), ""
    if not isinstance(value, list):
        return text_of(value, name, where), ""
    text, reasoning = [], []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if not isinstance(part, dict):
            text.append(text_of(part, name, where))
        elif kind in _TEXT_PARTS:
            text.append(text_of(part.get("text"), name, where))
        elif kind in _REASONING_PARTS:
            inner = next((part[key] for key in (*_REASONING_PARTS, "text") if key in part), None)
            reasoning.append(_content(inner, name, role, where)[0])
        else:
            raise UserError(
                f"{where}: {name} holds a part of type {kind!r}, and only text is trained on: "
                "leave such rows out. Nothing was written."
            )
    return "".join(text), "\n".join(reasoning)


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, str) or (isinstance(part, dict) and "type" in part) for part in value
    )


def _not_turns(got: str, column: str, where: str) -> UserError:
    turn = "{from, value}" if column == "conversations" else "{role, content}"
    return UserError(
        f'{where}: "{column}" must be a list of {turn}, got {got}. Nothing was written.'
    )
