"""Rows of JSON in whatever shape: a line each, printed over several lines, in one array, in parts.

JSON lines are read one at a time; the other shapes at once.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heldout.data.encoding import TextFile, first_undecoded
from heldout.data.record import Broken, Fault, Read, Record, type_words
from heldout.data.split_names import part_named

_ONE_OBJECT = 'Each line must be one object, such as {"text": "..."}.'
_LISTS = ("data", "rows", "examples", "instances", "items", "records", "samples")
_COLUMNS = (  # that tell a list of rows from a list of turns under an unusual key
    *("text", "messages", "conversations", "prompt", "completion", "instruction", "output"),
    *("question", "answer", "chosen"),
)
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class JsonValue:
    """One value of a file that is no JSON lines, and the line it begins at."""

    value: Any
    line: int


def json_records(file: TextFile, part_key: str = "") -> Iterator[Read]:
    """Rows of a file; ``part_key`` names the list of an object of parts, see ``keys_of_parts``.

    Raises Broken where what follows cannot be told apart.
    """
    values = whole_values(file)
    if values is None:
        yield from _json_lines(file)
    elif part_key:
        yield from _rows_of_list(values[0].value[part_key], f"{file.name} {part_key}")
    elif len(values) == 1 and (rows := rows_held(values[0].value)) is not None:
        yield from _rows_of_list(rows, file.name)
    else:
        for each in values:
            yield _row(each.value, f"{file.name} line {each.line}")


def keys_of_parts(file: TextFile) -> list[str]:
    """Keys such as train and test, where the file is one object that holds lists under them."""
    try:
        values = whole_values(file) if file.start().lstrip().startswith("{") else None
    except Broken:
        return []
    if values is None or len(values) != 1 or not isinstance(values[0].value, dict):
        return []
    lists = [key for key, value in values[0].value.items() if _is_list_of_rows(value)]
    named = [key for key in lists if part_named(key)]
    return named if len(named) >= 2 else []


def whole_values(file: TextFile) -> list[JsonValue] | None:
    """The values of a file that is not JSON lines; None for one that is. Raises Broken."""
    start = file.start().strip()
    if start.startswith("[") and "\n" not in start:  # one array in a line of any length
        return _values(file.whole())
    start, more = _first_lines(file)
    if not start.lstrip().startswith(("{", "[")):
        return None
    try:
        json.loads(start)
    except json.JSONDecodeError as error:
        # A line that breaks off anywhere but at its end is a broken line, not a longer value.
        several = error.msg == "Extra data" and not more
        if not several and (error.pos < len(start.rstrip()) - 1 or _is_object(more)):
            return None
    except (ValueError, RecursionError):
        return None
    else:
        if more:
            return None
    return _values(file.whole())


def _first_lines(file: TextFile) -> tuple[str, str]:
    """The first two lines with something in them."""
    found: list[str] = []
    try:
        for line in file.lines():
            if line.strip():
                found.append(line)
            if len(found) == 2:
                break
    except Broken:  # told after the rows before it
        if not found:
            raise
        found.append("damaged")
    return (*found, "", "")[0], (*found, "", "")[1]


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _values(text: str) -> list[JsonValue]:
    found: list[JsonValue] = []
    place, end = 0, len(text.rstrip())
    while True:
        while place < end and text[place] in " \t\r\n":
            place += 1
        if place >= end:
            return found
        line = text.count("\n", 0, place) + 1
        try:
            value, place = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise Broken("not_json", _not_json(error), error.lineno) from None
        except ValueError as error:
            raise Broken("not_json", _not_json(error), line) from None
        except RecursionError:
            raise Broken("not_json", _NESTED, line) from None
        found.append(JsonValue(value, line))


def rows_held(value: Any) -> list[Any] | None:
    """The rows that a list or an object holds; None for an object that is a row itself.

    Raises Broken for ``{"data": ...}`` that is no list.
    """
    key = _key_of_rows(value) if isinstance(value, dict) else ""
    held = value[key] if key else value
    if key and not isinstance(held, list):
        words = f'must hold a list of objects, or {{"data": [...]}}, got {type_words(held)}'
        raise Broken("format", words)
    return held if isinstance(held, list) else None


def _rows_of_list(rows: list[Any], name: str) -> Iterator[Read]:
    """The rows of the Hub's viewer stand in envelopes, beside their numbers."""
    for number, fields in enumerate(rows, 1):
        if isinstance(fields, dict) and "row_idx" in fields and isinstance(fields.get("row"), dict):
            fields = fields["row"]
        yield _row(fields, f"{name} row {number}")


def _key_of_rows(value: Mapping[str, Any]) -> str:
    """The key of the one list of rows that an object holds; empty where it is a row itself."""
    usual = next((key for key in _LISTS if _is_list_of_rows(value.get(key))), "")
    if usual:
        return usual
    if any(column in _COLUMNS for column in value):
        return ""
    lists = [key for key, each in value.items() if _is_list_of_rows(each)]
    if len(lists) == 1 and any(column in _COLUMNS for column in value[lists[0]][0]):
        return lists[0]
    return "data" if "data" in value else ""


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _row(fields: Any, where: str) -> Read:
    if not isinstance(fields, dict):
        return Record({}, where), Fault(
            "format", f"a row must be an object, got {type_words(fields)}"
        )
    return Record(fields, where), None


def _json_lines(file: TextFile) -> Iterator[Read]:
    for number, line in enumerate(file.lines(), 1):
        if line.isspace():
            continue
        where = f"{file.name} line {number}"
        if not line.isascii() and (found := first_undecoded(line)):
            yield Record({}, where), file.undecoded(number, found[0]).fault
            continue
        try:
            # Without its end: json would count columns from there.
            fields = json.loads(line.rstrip("\r\n"))
        except ValueError as error:
            if line.endswith("\n") or not line.lstrip().startswith("{"):
                yield Record({}, where), Fault("not_json", _not_json(error), _ONE_OBJECT)
            else:
                words = f"the last line is cut off: {_not_json(error)}"
                yield Record({}, where), Fault("truncated", words, _ONE_OBJECT)
        except RecursionError:
            yield Record({}, where), Fault("not_json", _NESTED, _ONE_OBJECT)
        else:
            yield _row(fields, where)


_NESTED = "not JSON (nested too deeply)"


def _not_json(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}, column {error.colno})"
    return "not JSON (a number has too many digits)"  # the only other that json raises
