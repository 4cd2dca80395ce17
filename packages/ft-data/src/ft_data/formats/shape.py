"""What a row format is, and the errors its reader raises."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ft_core.errors import DataError
from ft_core.examples import Example, Message, Source

Row = Mapping[str, Any]
"""One row of a file as plain JSON: column → value."""


@dataclass(frozen=True, slots=True)
class Format:
    """One shape of rows.

    Attributes:
        name: as it is called in reports.
        summary: the columns a row of this shape has, for messages and help.
        matches: says why a row has this shape, or ``None``.
        read: turns a row into an example; raises ``DataError`` with the rule that is broken.
        prompt: reads only the turns before the answer, where the answer is in a column of its own.
        pair: the columns of question and answer of such a shape.
    """

    name: str
    summary: str
    matches: Callable[[Row], str | None]
    read: Callable[[Row, Source], Example]
    prompt: Callable[[Row, Source], list[Message]] | None = None
    pair: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """The shape found and a sentence that says what it was recognised by."""

    format: Format
    reason: str


def fault(source: Source, message: str, field: str | None, rule: str) -> DataError:
    """Return the error for a row, naming its place, the field and the broken rule."""
    return DataError(message, path=source.path, line=source.line, field=field, rule=rule)


def kind_of(value: object) -> str:
    """Name a JSON value's type in words."""
    names: dict[type, str] = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def columns(*names: str) -> str:
    """Return the sentence for columns that decided a detection."""
    quoted = [repr(name) for name in names]
    if len(quoted) == 1:
        return f"it has the column {quoted[0]}"
    return f"it has the columns {', '.join(quoted[:-1])} and {quoted[-1]}"


def has(row: Row, name: str) -> bool:
    """Whether the row has a value in this column; null counts as no value."""
    return row.get(name) is not None


def text_in(row: Row, field: str, source: Source) -> str | None:
    """Return a text column's value; ``None`` where it is missing or null.

    Raises:
        DataError: the value is no text.
    """
    value = row.get(field)
    if value is None or isinstance(value, str):
        return value
    raise fault(source, f"must be a text, but is {kind_of(value)}", field, "wrong_type")


def list_in(row: Row, field: str, source: Source) -> list[Any]:
    """Return a list column's value; a list written as text (csv) is read, null is empty.

    Raises:
        DataError: the value is no list.
    """
    value = row.get(field)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = parse_nested(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    raise fault(source, f"must be a list, but is {kind_of(row.get(field))}", field, "wrong_type")


def parse_nested(text: str) -> Any:
    """Read JSON, or a Python literal, that was stored as text; text that is neither is returned as is."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
