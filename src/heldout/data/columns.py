"""Columns to rows: which format a table has, and what is wrong with its rows.

Formats, in the order in which they are looked for; the first whose columns are all there is taken,
because data sets often carry a flattened copy of the same row in a simpler format:

1. messages: ``messages``, a list of {role, content}
2. sharegpt: ``conversations``, a list of {from, value}
3. alpaca: ``instruction``, ``output`` and perhaps ``input``
4. prompt_completion: ``prompt``, ``completion``
5. glaive: ``system``, ``chat``, texts of Glaive's function calling
6. text: ``text``

Some other names are recognized for these: those of Dolly and the Chinese ones, see ``_SAME``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe import DataSection
from heldout.core.row import Part, Row
from heldout.data.conversation import unknown_keys
from heldout.data.dates import dates_of
from heldout.data.layout import Wanted
from heldout.data.messages import FORMATS, Faults, Format, messages, template_arguments_of, tools_of
from heldout.data.preference import refuse_media
from heldout.data.read import Table, read_table


@dataclass(frozen=True)
class ReadRows:
    """The rows of one source, never none."""

    rows: list[Row]
    kind: Literal["text", "completion", "conversation"]
    format: Format
    columns: dict[str, str]  # role -> column, as used
    source: str  # as the user gave it
    sha256: str  # of the source, see Table
    dates: list[float] | None = None  # of each row, where a column of dates was named
    notes: tuple[str, ...] = ()  # what was recognized, and what is not used


def read_rows(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    group: str = "",
    time: str = "",
    data: DataSection | None = None,
    part: Part | Wanted = "train",
) -> ReadRows:
    """Read a source and convert it; arguments and errors as in read_table and rows_from_table."""
    table = read_table(source, data or DataSection(), part, columns)
    return rows_from_table(table, columns, group, time)


def rows_from_table(
    table: Table, columns: Mapping[str, str] | None = None, group: str = "", time: str = ""
) -> ReadRows:
    """Convert records to rows; text is kept as it stands.

    ``columns`` maps roles to the table's columns where they are named otherwise
    ({"prompt": "question", "completion": "answer"}). ``group`` names the column whose equal values
    stay together in a split; without it, or where it is empty, a row is its own group ``row-N``,
    and each file of a folder of texts is one. Row.source is the ``source`` column, else the name
    of the file inside its folder. ``time`` names a column of dates.

    Raises UserError where columns fit no format, and for rows with nothing to learn from: an empty
    text, completion or assistant message, with their number and the first line.
    """
    columns = dict(columns or {})
    format_name, used = choose_format(table, columns)
    if group and group not in table.columns:
        raise UserError(f"data.group: {_no_column(table, group)}")
    if time and time not in table.columns:
        raise UserError(f"data.time: {_no_column(table, time)}")
    source_column = used.get("source", "")
    faults = Faults(table.name)
    rows = []
    for index, record in enumerate(table.records):
        if format_name != "text":
            refuse_media(record)
        turns = messages(record, format_name, used, faults)
        own_group = record.file if table.file_is_document else f"row-{index}"
        group_value = record.fields.get(group) if group else None
        source_value = record.fields.get(source_column) if source_column else None
        rows.append(
            Row(
                index=index,
                messages=turns,
                group=own_group if group_value in (None, "") else str(group_value),
                source=record.file if source_value in (None, "") else str(source_value),
                tools=tools_of(record, format_name, used),
                template_arguments=template_arguments_of(record, used),
                where=record.where,
            )
        )
    faults.raise_first()
    dates = dates_of(table.records, time) if time else None
    notes = (*table.notes, *unused_columns(table, format_name, used, group, time))
    return ReadRows(rows, rows[0].kind, format_name, used, table.name, table.sha256, dates, notes)


# Which format

_ROLES = list(
    dict.fromkeys(role for required, optional in FORMATS.values() for role in required + optional)
)

# Names that are taken for a role where all that a format needs is there.
_SAME: dict[Format, dict[str, tuple[str, ...]]] = {
    "messages": {"messages": ("对话",)},
    "alpaca": {
        "instruction": ("指令",),
        "input": ("context", "输入"),
        "output": ("response", "输出"),
    },
    "prompt_completion": {
        "prompt": ("问题", "提问", "提示"),
        "completion": ("回答", "答案", "回复"),
    },
    "text": {"text": ("正文", "文本")},
}

# Names that other data sets use, only to suggest a mapping.
_OTHER_NAMES = {
    "prompt": ("question", "query", "problem", "instruction", "input", "source"),
    "completion": ("answer", "response", "solution", "reply", "output", "target", "chosen"),
    "text": ("content", "body", "document", "story", "article", "sentence"),
    "messages": ("conversation", "dialog", "dialogue", "chat"),
}
_REASONING = ("complex_cot", "cot", "chain_of_thought", "rationale", "thought", "reasoning")
_CONTEXT = ("context", "passage", "background", "input", "knowledge", "reference")


def choose_format(table: Table, mapped: dict[str, str]) -> tuple[Format, dict[str, str]]:
    """The format of a table and role -> column as used; UserError where columns fit none."""
    for role, column in mapped.items():
        if role not in [*_ROLES, "source"]:
            hint = f": set data.group={column}." if role == "group" else did_you_mean(role, _ROLES)
            raise UserError(f"data.columns has no role {role!r}{hint}")
        if column not in table.columns:
            raise UserError(f"data.columns.{role}: {_no_column(table, column)}")
    named = set(mapped) - {"source"}
    missing = []
    for name, (required, optional) in FORMATS.items():
        if not named <= {*required, *optional}:
            continue
        found = {role: _column_of(role, name, table, mapped) for role in required + optional}
        absent = [role for role in required if found[role] not in table.columns]
        if not absent:
            used = {role: column for role, column in found.items() if column in table.columns}
            source = mapped.get("source", "source")
            if source in table.columns and source not in used.values():
                used["source"] = source
            return name, used
        if named:
            missing.append(absent)
    columns = ", ".join(map(repr, table.columns[:12])) + (", ..." if table.columns[12:] else "")
    if missing:
        needs = " and ".join(f"data.columns.{role}" for role in missing[0])
        raise UserError(
            f"{table.name}: data.columns maps {', '.join(sorted(named))}, set {needs} too. Columns "
            f"there: {columns}."
        )
    if named:
        raise UserError(
            f"data.columns maps {', '.join(sorted(named))}, which belong to different formats: "
            f"{_known_formats()}."
        )
    if not columns:
        raise UserError(f"{table.name}: its rows are empty objects. Nothing was written.")
    raise UserError(
        f"{table.name} has columns {columns}, which fit no known format ({_known_formats()}). "
        f"Map them: {_suggestion(table)}."
    )


def _known_formats() -> str:
    return "; ".join(" + ".join(required) for required, _ in FORMATS.values())


def _column_of(role: str, name: Format, table: Table, mapped: Mapping[str, str]) -> str:
    """The column of a role: as mapped, by its own name, or by one that means the same."""
    others = _SAME.get(name, {}).get(role, ())
    return mapped.get(role) or next((c for c in (role, *others) if c in table.columns), role)


def _suggestion(table: Table) -> str:
    """Options that would make a format of the columns, with the context in the prompt."""
    by_lower = {column.lower(): column for column in table.columns}
    guess = {
        role: next((by_lower[name] for name in (role, *names) if name in by_lower), None)
        for role, names in _OTHER_NAMES.items()
    }
    pair = {"prompt": guess["prompt"], "completion": guess["completion"]}
    reasoning = next((by_lower[name] for name in _REASONING if name in by_lower), None)
    thought = {"reasoning": reasoning} if reasoning else {}
    context = next((by_lower[name] for name in _CONTEXT if name in by_lower), None)
    if context and context not in pair.values():
        found = {"instruction": pair["prompt"], "input": context, "output": pair["completion"]}
        if all(found.values()):
            return _options(found | thought)
    for wanted in (pair, {"text": guess["text"]}, {"messages": guess["messages"]}):
        if all(wanted.values()):
            return _options(wanted | (thought if wanted is pair else {}))
    return "--set data.columns.text=NAME, or data.columns.prompt and data.columns.completion"


def _options(columns: Mapping[str, str | None]) -> str:
    return " ".join(f"--set data.columns.{role}={column}" for role, column in columns.items())


def unused_columns(
    table: Table, format_name: Format, used: Mapping[str, str], group: str = "", time: str = ""
) -> list[str]:
    """Sentences on the columns, and the keys of turns, that nothing is learned from.

    Of a context it says how it comes into the prompt.
    """
    known = {*used.values(), *table.used, group, time}
    unused = [column for column in table.columns if column not in known]
    notes = _unused_keys(table, format_name, used)
    if not unused:
        return notes
    some = ", ".join(map(repr, unused[:8])) + (f" and {len(unused) - 8} more" * bool(unused[8:]))
    note = f"{table.name}: not used: {'column' if len(unused) == 1 else 'columns'} {some}."
    context = next((column for column in unused if column.lower() in _CONTEXT), None)
    if context and format_name == "prompt_completion":
        roles = {"instruction": used["prompt"], "input": context, "output": used["completion"]}
        note += f" To put {context!r} into the prompt: {_options(roles)}."
    return [note, *notes]


def _unused_keys(table: Table, format_name: Format, used: Mapping[str, str]) -> list[str]:
    if format_name not in ("messages", "sharegpt"):
        return []
    column = used[FORMATS[format_name][0][0]]
    keys = sorted(set().union(*(unknown_keys(row.fields.get(column)) for row in table.records)))
    if not keys:
        return []
    some = ", ".join(map(repr, keys[:8])) + (f" and {len(keys) - 8} more" * bool(keys[8:]))
    what = "key" if len(keys) == 1 else "keys"
    return [f"{table.name}: not used: {what} {some} of the turns in {column!r}."]


def _no_column(table: Table, column: str) -> str:
    return f"{table.name} has no column {column!r}{did_you_mean(column, table.columns)}"
