"""Rows of Glaive's function calling as published: a text of turns, and tools in the system's text.

``system`` is ``SYSTEM: ...``, with the tools as JSON objects at its end. ``chat`` is one text of
``USER:``, ``ASSISTANT: ... <|endoftext|>`` and ``FUNCTION RESPONSE:``; a call is ``<functioncall>``
before JSON whose arguments are JSON again, between single quotes, with apostrophes as they are.
"""

import json
import re
from typing import Any

from heldout.core.errors import UserError
from heldout.core.row import Message
from heldout.data.tools import call_of, tools_of

_END = "<|endoftext|>"
_CALL = "<functioncall>"
_SPEAKERS = ("USER", "ASSISTANT", "FUNCTION RESPONSE")
_BRIEF_SPEAKERS = ("USER", "A", "FUNCTION RESPONSE")  # where no turn is of ASSISTANT
_ROLES = dict(zip(_SPEAKERS, ("user", "assistant", "tool"), strict=True)) | {"A": "assistant"}
_QUOTED = re.compile(
    r"""\{\s*"name"\s*:\s*"(?P<name>[^"]+)"\s*,\s*"arguments"\s*:\s*'(?P<arguments>.*)'\s*\}""",
    re.DOTALL,
)
_DECODER = json.JSONDecoder(strict=False)  # strings may go over several lines


def turns_of_text(text: str, column: str, where: str) -> tuple[Message, ...]:
    """The turns of a ``chat`` text; none of an empty one.

    Raises UserError for a text that is not turns all through: without who speaks at its beginning,
    or with an answer that does not end in ``<|endoftext|>`` before the next turn.
    """
    if not text.strip():
        return ()
    speakers = _SPEAKERS if _turn_starts(_SPEAKERS[1:2]).search(text) else _BRIEF_SPEAKERS
    head, *rest = _turn_starts(speakers).split(text)
    if head.strip():
        raise _broken(f"{head.strip()[:20]!r} at its beginning", column, where)
    turns: list[Message] = []
    for speaker, raw in zip(rest[::2], rest[1::2], strict=True):
        said = raw.strip()
        has_end = said.endswith(_END)
        said = said.removesuffix(_END).strip()
        name = f'"{column}" {len(turns) + 1}'
        if _END in said:
            raise _broken(f"{_END} within turn {len(turns) + 1}", column, where)
        if _ROLES[speaker] != "assistant":
            turns.append({"role": _ROLES[speaker], "content": said})
            continue
        if not has_end and 2 * (len(turns) + 1) < len(rest):
            raise _broken(f"turn {len(turns) + 1} without {_END} at its end", column, where)
        content, *calls = said.split(_CALL)
        turn: Message = {"role": "assistant", "content": content.strip()}
        if calls:
            turn["tool_calls"] = [call_of(_call(each), f"{name} {_CALL}", where) for each in calls]
        turns.append(turn)
    return tuple(turns)


def system_and_tools(text: str, column: str, where: str) -> tuple[str, tuple[dict[str, Any], ...]]:
    """The system message without its list of tools, and the tools.

    All of it and no tools where what looks like the list cannot be read.
    """
    said = text.strip().removeprefix("SYSTEM:").strip()
    first = re.search(r"[\[{]", said)
    if first is None:
        return said, ()
    found: list[Any] = []
    position = first.start()
    while said[position : position + 1] in ("[", "{"):
        try:
            value, position = _DECODER.raw_decode(said, position)
        except (ValueError, RecursionError):
            return said, ()
        found += value if isinstance(value, list) else [value]
        position += len(said[position:]) - len(said[position:].lstrip(" \t\r\n,"))
    try:
        tools = tools_of(found, column, where)
    except UserError:
        return said, ()
    # The list was introduced by a dash or a colon.
    around = (said[: first.start()].rstrip(" \t\r\n-:"), said[position:].strip())
    return "\n".join(part for part in around if part), tools


def _turn_starts(speakers: tuple[str, ...]) -> re.Pattern[str]:
    """Who speaks, at the beginning of a line or behind the end of an answer."""
    return re.compile(rf"(?:\A|(?<=\n)|(?<={re.escape(_END)}))\s*({'|'.join(speakers)}):")


def _call(text: str) -> Any:
    """A call as an object; the text where it is none."""
    text = text.strip()
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return text
    arguments = quoted["arguments"]
    for written in (arguments, arguments.replace("\\'", "'")):
        try:
            return {"name": quoted["name"], "arguments": _DECODER.decode(written)}
        except (ValueError, RecursionError):
            continue
    return {"name": quoted["name"], "arguments": arguments}


def _broken(got: str, column: str, where: str) -> UserError:
    return UserError(
        f'{where}: "{column}" must be turns of USER:, ASSISTANT: ... {_END} and FUNCTION '
        f"RESPONSE:, each on a new line, got {got}. Mend or leave out such rows. Nothing was "
        "written."
    )
