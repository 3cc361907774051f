"""One record to the messages of a row, and the faults that make it useless."""

from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.recipe_fields import TEMPLATE_ARGUMENTS
from heldout.core.row import Message
from heldout.data import glaive, tools
from heldout.data.cells import json_type_words, json_value, text_of, without_nulls
from heldout.data.conversation import conversation, note_faults, with_system
from heldout.data.record import Record

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "glaive", "text"]

_ARGUMENTS = "chat_template_kwargs"  # TRL's column
FORMATS: dict[Format, tuple[tuple[str, ...], tuple[str, ...]]] = {  # required, optional roles
    "messages": (("messages",), ("system", "tools", _ARGUMENTS)),
    "sharegpt": (("conversations",), ("system", "tools", _ARGUMENTS)),
    "alpaca": (
        ("instruction", "output"),
        ("input", "system", "history", "tools", "reasoning", _ARGUMENTS),
    ),
    "prompt_completion": (("prompt", "completion"), ("system", "tools", "reasoning", _ARGUMENTS)),
    "glaive": (("system", "chat"), (_ARGUMENTS,)),
    "text": (("text",), ()),
}
# Columns that only a chat template has a place for: rows with them are conversations.
_OF_A_CONVERSATION = ("system", "history", "tools", "reasoning", _ARGUMENTS)


class Faults:
    """Rows that hold nothing to learn from, counted over the whole table before they are told."""

    def __init__(self, source: str):
        self.source = source
        self.places: dict[str, list[str]] = {}  # fault, as said of one row -> places

    def add(self, fault: str, where: str) -> None:
        self.places.setdefault(fault, []).append(where)

    def raise_first(self) -> None:
        for fault, places in self.places.items():
            if len(places) > 1:
                fault = fault.replace("has", "have", 1).replace("does not", "do not", 1)
            raise UserError(
                f"{self.source}: {len(places)} row{'s' if len(places) > 1 else ''} {fault}, "
                f"at {_listed([self._inside(place) for place in places])}. Fill in or leave out "
                "such rows. Nothing was written."
            )

    def _inside(self, place: str) -> str:
        return place.removeprefix(self.source).strip(" /")


def _listed(places: list[str]) -> str:
    """The first places, as in "lines 7, 9, 10, 11 and 8 more"."""
    more = f" and {len(places) - 4:,} more" if len(places) > 5 else ""
    shown = places[: 4 if more else 5]
    kind, _, number = shown[0].rpartition(" ")  # "line", or "b.jsonl line"
    if len(shown) > 1 and kind.endswith(("line", "row")):
        others = [place.removeprefix(f"{kind} ") for place in shown[1:]]
        if all(map(str.isdecimal, others)):
            shown = [f"{kind}s {number}", *others]
    return ", ".join(shown) + more


def messages(
    record: Record, format_name: Format, columns: dict[str, str], faults: Faults
) -> tuple[Message, ...]:
    """Messages as Row holds them; faults are noted, wrong types raise UserError at once."""
    required, optional = FORMATS[format_name]
    for role in required:
        if columns[role] not in record.fields:
            faults.add(f'has no "{columns[role]}"', record.where)
            return ({"role": "text", "content": ""},)  # never seen: the fault is raised
    if format_name == "text":
        return _one_text(record, columns["text"], faults)
    cells = {
        role: record.fields.get(columns[role]) for role in required + optional if role in columns
    }
    spoken = required[-1]  # chat, messages or conversations
    if format_name == "glaive" and not _are_turns(cells[spoken]):
        text = _text(cells, columns, spoken, record.where)
        turns = glaive.turns_of_text(text, columns[spoken], record.where)
    elif format_name in ("messages", "sharegpt", "glaive"):
        turns = conversation(cells[spoken], columns[spoken], record.where)
    elif format_name == "prompt_completion" and any(_are_turns(cells[role]) for role in required):
        turns = _prompt_and_answer(cells, columns, record.where)
    else:
        return _written(record, format_name, columns, cells, faults)
    system = _text(cells, columns, "system", record.where)
    if format_name == "glaive":
        system, _ = glaive.system_and_tools(system, columns["system"], record.where)
    turns = with_system(turns, system, columns.get("system", "system"), record.where)
    note_faults(turns, lambda fault: faults.add(fault, record.where))
    return turns


def tools_of(
    record: Record, format_name: Format, columns: dict[str, str]
) -> tuple[dict[str, Any], ...]:
    """The tools of a row, from the column with that role, or where Glaive writes them."""
    column = columns.get("system" if format_name == "glaive" else "tools", "")
    value = record.fields.get(column)
    if format_name == "glaive":
        text = text_of(value, column, record.where)
        return glaive.system_and_tools(text, column, record.where)[1]
    return tools.tools_of(value, column, record.where)


def template_arguments_of(record: Record, columns: dict[str, str]) -> dict[str, Any]:
    """What a row tells the chat template, in the column with that role."""
    column = columns.get(_ARGUMENTS, "")
    value = without_nulls(json_value(record.fields.get(column)))
    if value in (None, "", {}):
        return {}
    if not isinstance(value, dict) or not TEMPLATE_ARGUMENTS.holds(value):
        got = ", ".join(map(str, value)) if isinstance(value, dict) else json_type_words(value)
        raise UserError(
            f'{record.where}: "{column}" must be an object of {TEMPLATE_ARGUMENTS.words}, got '
            f"{got}. Nothing was written."
        )
    return value


def _one_text(record: Record, column: str, faults: Faults) -> tuple[Message, ...]:
    text = text_of(record.fields[column], column, record.where)
    if not text.strip():
        faults.add(f'has an empty "{column}"', record.where)
    return ({"role": "text", "content": text},)


def _written(
    record: Record,
    format_name: Format,
    columns: dict[str, str],
    cells: dict[str, Any],
    faults: Faults,
) -> tuple[Message, ...]:
    """Rows of several texts: a prompt with its answer, or a conversation made of them."""
    texts = {
        role: _text(cells, columns, role, record.where)
        for role in cells
        if role not in ("tools", "history", _ARGUMENTS)
    }
    learned = FORMATS[format_name][0][-1]  # completion or output
    if not texts[learned].strip():
        faults.add(f'has an empty "{columns[learned]}"', record.where)
    if any(role in columns for role in _OF_A_CONVERSATION):
        asked = _asked(texts)
        answer: Message = {"role": "assistant", "content": texts[learned]}
        if texts.get("reasoning", "").strip():
            answer["reasoning_content"] = texts["reasoning"]
        before = _history(cells.get("history"), columns.get("history", ""), record.where)
        turns = (*before, {"role": "user", "content": asked}, answer)
        return with_system(turns, texts.get("system", ""), "", record.where)
    prompt = texts["prompt"] if format_name == "prompt_completion" else _alpaca_prompt(texts)
    return (
        {"role": "prompt", "content": prompt},
        {"role": "completion", "content": texts[learned]},
    )


def _text(cells: dict[str, Any], columns: dict[str, str], role: str, where: str) -> str:
    return text_of(cells.get(role), columns.get(role, role), where)


def _asked(texts: dict[str, str]) -> str:
    """The prompt, or the instruction before its input, without markers."""
    parts = [texts.get("prompt", ""), texts.get("instruction", ""), texts.get("input", "")]
    return "\n".join(part for part in parts if part.strip())


def _alpaca_prompt(texts: dict[str, str]) -> str:
    """Alpaca's markers, not its preamble: with it all short rows would be near duplicates."""
    parts = [f"### Instruction:\n{texts['instruction']}\n\n"]
    if texts.get("input", "").strip():
        parts.append(f"### Input:\n{texts['input']}\n\n")
    return "".join([*parts, "### Response:\n"])


def _history(value: Any, column: str, where: str) -> list[Message]:
    """Earlier turns, given as pairs of question and answer."""
    turns: list[Message] = []
    pairs = json_value(value) or []
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            got = f"a list of {len(pair)}" if isinstance(pair, list) else json_type_words(pair)
            raise UserError(
                f'{where}: "{column}" must be a list of pairs [question, answer], got {got} in it. '
                "Nothing was written."
            )
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": text_of(text, column, where)})
    return turns


def _are_turns(cell: Any) -> bool:
    turns = json_value(cell)
    return isinstance(turns, list) and all(
        isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns
    )


def _prompt_and_answer(
    cells: dict[str, Any], columns: dict[str, str], where: str
) -> tuple[Message, ...]:
    """A prompt that is context, whoever speaks in it, and the answers to learn."""
    prompt, answers = cells["prompt"], cells["completion"]
    asked: tuple[Message, ...] = ({"role": "user", "content": ""},)
    answered: tuple[Message, ...] = ({"role": "assistant", "content": ""},)
    if _are_turns(prompt):
        asked = conversation(prompt, columns["prompt"], where)
    else:
        asked[0]["content"] = text_of(prompt, columns["prompt"], where)
    if _are_turns(answers):
        answered = conversation(answers, columns["completion"], where)
    else:
        answered[0]["content"] = text_of(answers, columns["completion"], where)
    context = [{**turn, "train": False} if turn["role"] == "assistant" else turn for turn in asked]
    return (*context, *answered)
