"""Calls of functions, and the functions that may be called, in the forms that chat formats have for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ft_core.examples import Source, ToolCall
from ft_data.formats.shape import Row, fault, has, kind_of, parse_nested

_FORM = "is no call: give {'name': …, 'arguments': {…}} as JSON"


def read_calls(value: object, where: str, source: Source) -> tuple[ToolCall, ...]:
    """Read calls: one or a list of ``{"name", "arguments"}``, flat or in OpenAI's or Anthropic's form, or JSON of it.

    Raises:
        DataError: something is no call.
    """
    if isinstance(value, str):
        value = parse_nested(value) if value.strip() else None
    if value is None:
        return ()
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)):
        raise fault(source, _FORM, where, "bad_tool_call")
    calls: list[ToolCall] = []
    for item in items:
        call = _call(parse_nested(item) if isinstance(item, str) else item)
        if call is None:
            raise fault(source, _FORM, where, "bad_tool_call")
        calls.append(call)
    return tuple(calls)


def are_calls(value: object) -> bool:
    """Whether a value is one or several calls rather than text or turns."""
    value = parse_nested(value) if isinstance(value, str) else value
    items = [value] if isinstance(value, Mapping) else value
    return (
        isinstance(items, (list, tuple))
        and bool(items)
        and all(_call(item) is not None and not {"role", "from"} & set(item) for item in items)
    )


def _call(item: object) -> ToolCall | None:
    if not isinstance(item, Mapping):
        return None
    function = item.get("function", item)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    names = ("arguments", "parameters", "input")
    arguments = next((function[name] for name in names if name in function), None)
    identity = item.get("id")
    if not (arguments is None or isinstance(arguments, (str, Mapping))):
        return None
    if not (identity is None or isinstance(identity, str)):
        return None
    flat = {"name": function["name"], "arguments": {} if arguments is None else arguments}
    return ToolCall.from_json(flat if identity is None else {**flat, "id": identity})


def read_tools(row: Row, source: Source) -> tuple[Mapping[str, Any], ...]:
    """Read the functions in ``tools``, or in ``functions`` as older chat formats call them.

    Raises:
        DataError: something is no function with a name.
    """
    field = "tools" if has(row, "tools") else "functions"
    value = row.get(field)
    if value is None:
        return ()
    if isinstance(value, str):
        if not value.strip():
            return ()
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise fault(source, "is no JSON list of functions", field, "bad_tools") from error
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)):
        message = f"must be a list of functions, but is {kind_of(value)}"
        raise fault(source, message, field, "bad_tools")
    return tuple(_tool(item, f"{field}[{index}]", source) for index, item in enumerate(items))


def _tool(item: object, where: str, source: Source) -> Mapping[str, Any]:
    tool = parse_nested(item) if isinstance(item, str) else item
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if (
        not isinstance(tool, Mapping)
        or not isinstance(function, Mapping)
        or not isinstance(function.get("name"), str)
    ):
        raise fault(source, "is no function with a 'name'", where, "bad_tools")
    if "input_schema" in tool and "parameters" not in tool:  # Anthropic's name for it
        rest = {key: value for key, value in tool.items() if key != "input_schema"}
        return {**rest, "parameters": tool["input_schema"]}
    return tool


def calls_of(turn: Mapping[str, Any], where: str, source: Source) -> tuple[ToolCall, ...]:
    """Read the calls that a turn holds beside its content."""
    calls = read_calls(turn.get("tool_calls"), f"{where}.tool_calls", source)
    if turn.get("function_call") is not None:  # the form before tool_calls
        calls += read_calls(turn["function_call"], f"{where}.function_call", source)
    return calls
