"""Calls of tools, pattern ``tools``: rows of messages with the tools that may be called.

One row gives a question for each turn in which the assistant calls functions or answers a tool's result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ft_core.examples import Example, Message
from ft_eval.respondents.protocol import Prompt
from ft_eval.tasks.custom import Source
from ft_eval.tasks.files import Row, read_rows
from ft_eval.tasks.task import Item, Task


def build(source: Source) -> Task:
    """Read a file of conversations with tools."""
    items = [
        item
        for number, row in enumerate(read_rows(source.file))
        for item in _items(row, number, source)
    ]
    return Task(
        source.entry.name,
        tuple(items),
        "generation",
        tuple(source.entry.metrics or ("tool_name", "tool_call")),
        subset=source.subset,
        max_new_tokens=source.entry.max_new_tokens or 256,
    )


def _items(row: Row, number: int, source: Source) -> Iterator[Item]:
    messages, tools = _conversation(row)
    if source.entry.system is not None and messages[0].role != "system":
        messages = (Message("system", source.entry.system), *messages)
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        yield Item(
            f"{row.text('id', str(number))}/{place}",
            Prompt(messages[:place], tools=tools),
            (message.text,) if message.text else (),
            extra={"calls": calls},
            place=row.place,
        )


def _conversation(row: Row) -> tuple[tuple[Message, ...], tuple[Mapping[str, Any], ...]]:
    messages = row.values.get("messages")
    if not isinstance(messages, list) or not messages:
        row.fail(
            f"must be a list of messages; the row has {', '.join(row.values)}",
            "messages",
            "missing_column",
        )
    tools = row.values.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            row.fail(f"is not JSON: {error.msg}", "tools", "invalid_json")
    if not isinstance(tools, list) or not tools:
        row.fail("must be a list of JSON schemas", "tools", "missing_column")
    try:
        example = Example.from_json({"messages": messages, "tools": tools}, row.place)
    except (KeyError, TypeError, AttributeError) as error:
        row.fail(
            f"must be objects with role and content ({type(error).__name__}: {error})",
            "messages",
            "wrong_type",
        )
    if not any(message.role == "assistant" for message in example.messages):
        row.fail("have no turn of the assistant to compare with", "messages", "missing_answer")
    return tuple(_parsed(message) for message in example.messages), tuple(example.tools)


def _parsed(message: Message) -> Message:
    calls = tuple(
        replace(call, arguments=json.loads(call.arguments or "{}"))
        if isinstance(call.arguments, str)
        else call
        for call in message.tool_calls
    )
    return replace(message, tool_calls=calls) if calls else message
