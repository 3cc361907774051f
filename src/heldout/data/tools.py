"""Tools that a model may call, and its calls, as chat templates take them."""

from collections.abc import Mapping
from typing import Any

from heldout.core.errors import UserError
from heldout.data.cells import json_type_words, json_value, without_nulls


def tools_of(value: Any, column: str, where: str) -> tuple[dict[str, Any], ...]:
    """Descriptions of tools, given as a list or as its JSON text; none for an empty one."""
    value = json_value(value)
    if value in (None, "", [], {}):
        return ()
    found = []
    for tool in map(json_value, value if isinstance(value, list) else [value]):
        if not isinstance(tool, dict) or not {"function", "name"} & tool.keys():
            raise UserError(
                f'{where}: "{column}" must be a list of tools, {{type, function}} or {{name, '
                f"parameters}}, got {json_type_words(tool)} in it. Nothing was written."
            )
        tool = without_nulls(tool)
        found.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tuple(found)


def calls_of_turn(turn: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """The calls under ``tool_calls`` and ``function_call`` of a turn."""
    calls = json_value(turn.get("tool_calls")) or []
    calls = list(calls) if isinstance(calls, list) else [calls]
    if turn.get("function_call"):
        calls.append(turn["function_call"])
    return [call_of(call, f"{name} tool_calls", where) for call in calls]


def calls_of_text(text: str, name: str, where: str) -> list[dict[str, Any]]:
    """The calls that the text of a function_call turn holds as JSON, one or a list."""
    value = json_value(text)
    return [call_of(call, name, where) for call in (value if isinstance(value, list) else [value])]


def call_of(call: Any, name: str, where: str) -> dict[str, Any]:
    """A call as transformers documents it: its arguments are an object."""
    call = json_value(call)
    function = json_value(call.get("function", call)) if isinstance(call, dict) else call
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        got = json_type_words(function) if not isinstance(function, dict) else "no name"
        raise UserError(
            f"{where}: {name} must be calls {{name, arguments}} or their JSON text, got {got}. "
            "Nothing was written."
        )
    arguments = json_value(function.get("arguments", function.get("parameters")))
    arguments = {} if arguments in (None, "") else arguments
    if not isinstance(arguments, dict):
        raise UserError(
            f'{where}: {name}: the arguments of "{function["name"]}" must be an object or its JSON '
            f"text, got {json_type_words(arguments)}. Nothing was written."
        )
    found = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {**found, "id": call["id"]} if isinstance(call.get("id"), str) else found
