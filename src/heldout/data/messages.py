"""One record to the messages of a row, and the faults that make it useless."""

from typing import Any, Literal

from heldout.core.errors import UserError, did_you_mean
from heldout.data.record import Record, type_words

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text"]

FORMATS: dict[Format, tuple[tuple[str, ...], tuple[str, ...]]] = {  # required, optional roles
    "messages": (("messages",), ()),
    "sharegpt": (("conversations",), ()),
    "alpaca": (("instruction", "output"), ("input",)),
    "prompt_completion": (("prompt", "completion"), ()),
    "text": (("text",), ()),
}


class Faults:
    """Rows that hold nothing to learn from, counted over the whole table before they are told."""

    def __init__(self, source: str):
        self.source = source
        self.places: dict[str, list[str]] = {}  # fault, as said of one row -> places

    def add(self, fault: str, where: str) -> None:
        self.places.setdefault(fault, []).append(where)

    def raise_first(self) -> None:
        for fault, places in self.places.items():
            place = places[0].removeprefix(self.source).strip(" /")
            if len(places) > 1:
                fault = fault.replace("has", "have", 1).replace("does not", "do not", 1)
            raise UserError(
                f"{self.source}: {len(places)} row{'s' if len(places) > 1 else ''} {fault}, "
                f"{'first ' if len(places) > 1 else ''}at {place}. Fill in or leave out such rows. "
                "Nothing was written."
            )


def messages(
    record: Record, format_name: Format, columns: dict[str, str], faults: Faults
) -> tuple[dict[str, str], ...]:
    """Messages as Row holds them; faults are noted, wrong types raise UserError at once."""
    required, optional = FORMATS[format_name]
    for role in required:
        if columns[role] not in record.fields:
            faults.add(f'has no "{columns[role]}"', record.where)
            return ({"role": "text", "content": ""},)  # never seen: the fault is raised
    if format_name in ("messages", "sharegpt"):
        column = columns[required[0]]
        return _conversation(record.fields[column], column, record.where, faults)
    texts = {
        role: _text(record.fields.get(columns[role]), columns[role], record.where)
        for role in required + optional
        if role in columns
    }
    learned = required[-1]  # text, completion or output
    if not texts[learned].strip():
        faults.add(f'has an empty "{columns[learned]}"', record.where)
    if format_name == "text":
        return ({"role": "text", "content": texts["text"]},)
    prompt = texts["prompt"] if format_name == "prompt_completion" else _alpaca_prompt(texts)
    return (
        {"role": "prompt", "content": prompt},
        {"role": "completion", "content": texts[learned]},
    )


def _text(value: Any, name: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f'{where}: "{name}" must be text, got {type_words(value)}. Nothing was written.'
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f'{where}: "{name}" holds half of a character (a lone surrogate). Nothing was written.'
        ) from None
    return value


def _alpaca_prompt(texts: dict[str, str]) -> str:
    """Alpaca's markers, not its preamble: with it all short rows would be near duplicates."""
    parts = [f"### Instruction:\n{texts['instruction']}\n\n"]
    if texts.get("input", "").strip():
        parts.append(f"### Input:\n{texts['input']}\n\n")
    return "".join([*parts, "### Response:\n"])


_SPEAKERS = {  # names of the speaker in messages and sharegpt -> role
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "系统": "system",
    "用户": "user",
    "助手": "assistant",
}


def _conversation(
    value: Any, column: str, where: str, faults: Faults
) -> tuple[dict[str, str], ...]:
    """Turns as {role, content} or {from, value}, whichever the column is called."""
    if not isinstance(value, list):
        raise _not_turns(type_words(value), column, where)
    turns = [_turn(turn, f'"{column}" {n}', column, where) for n, turn in enumerate(value, 1)]
    roles = [turn["role"] for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in roles:
        faults.add("has no assistant message", where)
    elif spoken[0] != "user":
        faults.add(
            "does not start with a user message (a system message may stand before it)", where
        )
    elif any(t["role"] == "assistant" and not t["content"].strip() for t in turns):
        faults.add("has an empty assistant message", where)
    return tuple(turns)


def _turn(turn: Any, name: str, column: str, where: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise _not_turns(f"{type_words(turn)} in it", column, where)
    speaker_key, content_key = ("from", "value") if "from" in turn else ("role", "content")
    if not {speaker_key, content_key} <= turn.keys():
        raise UserError(
            f"{where}: {name} must have {speaker_key} and {content_key}, got "
            f"{', '.join(map(str, turn)) or 'nothing'}. Nothing was written."
        )
    if turn.get("tool_calls"):
        raise UserError(
            f"{where}: {name} has tool_calls, which are not read yet. Nothing was written."
        )
    speaker = turn[speaker_key]
    if not isinstance(speaker, str) or speaker.lower() not in _SPEAKERS:
        near = did_you_mean(str(speaker), list(_SPEAKERS))
        raise UserError(f"{where}: {name} has {speaker_key} {speaker!r}{near} Nothing was written.")
    content = _text(turn[content_key], f"{column} {content_key}", where)
    return {"role": _SPEAKERS[speaker.lower()], "content": content}


def _not_turns(got: str, column: str, where: str) -> UserError:
    turn = "{from, value}" if column == "conversations" else "{role, content}"
    return UserError(
        f'{where}: "{column}" must be a list of {turn}, got {got}. Nothing was written.'
    )
