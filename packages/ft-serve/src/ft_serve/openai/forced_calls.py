"""Calls that a request insists on: the answer is held to JSON of them, and read as it streams in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.engine import Constraint
from ft_serve.openai.protocol.chat import FunctionTool


@dataclass(frozen=True, slots=True)
class CallPiece:
    """More of a call.

    Attributes:
        index: number of the call.
        arguments: more of the JSON text of its arguments.
        name: of the function, in the first piece only.
    """

    index: int
    arguments: str = ""
    name: str | None = None


def arguments_schema(tool: FunctionTool) -> dict[str, Any]:
    """Return the JSON schema of a function's arguments; they are always an object."""
    schema = dict(tool.function.parameters or {})
    return schema if "type" in schema or "$ref" in schema else {"type": "object", **schema}


def one_function(tool: FunctionTool) -> Constraint:
    """Return what holds an answer to the arguments of one function."""
    return Constraint("json_schema", json.dumps(arguments_schema(tool)))


def any_function(tools: Sequence[FunctionTool], *, several: bool) -> Constraint:
    """Return what holds an answer to a list of calls.

    Args:
        tools: the functions.
        several: whether there may be more than one call.
    """
    schemas = {f"f{number}": arguments_schema(tool) for number, tool in enumerate(tools)}
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": {"$ref": f"#/$defs/{key}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for key, tool in zip(schemas, tools, strict=True)
    ]
    schema: dict[str, Any] = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": calls},
        "$defs": {key: _moved(value, f"#/$defs/{key}") for key, value in schemas.items()},
    }
    if not several:
        schema["maxItems"] = 1
    return Constraint("json_schema", json.dumps(schema))


def _moved(value: Any, place: str) -> Any:
    """Return a schema whose references are right where it stands now."""
    if isinstance(value, Mapping):
        moved = {key: _moved(item, place) for key, item in value.items()}
        reference = moved.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            moved["$ref"] = place + reference[1:]
        return moved
    if isinstance(value, list):
        return [_moved(item, place) for item in value]
    return value


class OneCall:
    """Reads an answer that is nothing but the arguments of one function."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def feed(self, text: str) -> list[CallPiece]:
        """Take more of the answer and return it as a piece of the call."""
        name, self._name = self._name, None
        return [CallPiece(0, text, name)] if text or name else []


class ListOfCalls:
    """Reads ``[{"name": …, "arguments": {…}}, …]`` and gives arguments on as they come."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False
        self._word = ""
        self._key: str | None = None
        self._index = -1
        self._in_arguments = False
        self._name: str | None = None
        self._pieces: list[CallPiece] = []
        self._fresh = ""

    def feed(self, text: str) -> list[CallPiece]:
        """Take more of the answer and return the pieces that are in it."""
        for character in text:
            if self._in_string:
                self._string(character)
            else:
                self._structure(character)
        self._give()
        pieces, self._pieces = self._pieces, []
        return pieces

    def _string(self, character: str) -> None:
        self._keep(character)
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
            if self._depth == 2:
                self._end_string()
            return
        self._word += character

    def _end_string(self) -> None:
        word = json.loads(f'"{self._word}"')
        if self._key is None:
            self._key = word
        elif self._key == "name":
            self._name, self._key = word, None

    def _structure(self, character: str) -> None:
        if character == '"':
            self._in_string, self._word = True, ""
            self._keep(character)
        elif character in "[{":
            self._open(character)
        elif character in "]}":
            self._close(character)
        else:
            self._keep(character)

    def _open(self, character: str) -> None:
        self._depth += 1
        if self._depth == 2:
            self._index += 1
            self._key = None
        elif self._depth == 3 and self._key == "arguments":
            self._in_arguments = True
        self._keep(character)

    def _close(self, character: str) -> None:
        self._keep(character)
        self._depth -= 1
        if self._depth == 2 and self._in_arguments:
            self._give()
            self._in_arguments, self._key = False, None

    def _keep(self, character: str) -> None:
        if self._in_arguments:
            self._fresh += character

    def _give(self) -> None:
        if self._fresh:
            name, self._name = self._name, None
            self._pieces.append(CallPiece(self._index, self._fresh, name))
            self._fresh = ""
