"""What rows of every shape may hold beside their turns: history, system message, functions, files, weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ft_core.examples import Example, Message, Source
from ft_data.formats.calls import read_tools
from ft_data.formats.media import BadMediaError, media_paths
from ft_data.formats.parts import without_files
from ft_data.formats.shape import Row, fault, kind_of, list_in, parse_nested, text_in
from ft_data.formats.turns import read_talk


def read_history(row: Row, source: Source) -> list[Message]:
    """Read the earlier rounds in ``history``: pairs of question and answer, or a conversation of another form."""
    earlier = list_in(row, "history", source)
    return read_talk(earlier, "history", source) if earlier else []


def system_turn(row: Row, source: Source) -> list[Message]:
    """Return the row's ``system`` column as a turn; ``""`` is an explicit empty system message."""
    system = text_in(row, "system", source)
    return [] if system is None else [Message("system", system)]


def with_system(messages: Sequence[Message], row: Row, source: Source) -> list[Message]:
    """Put the row's ``system`` column before turns that have no system message of their own."""
    if messages and messages[0].role == "system":
        return list(messages)
    return [*system_turn(row, source), *messages]


def example(messages: Sequence[Message], row: Row, source: Source, **fields: Any) -> Example:
    """Build an example from turns and from the columns every shape shares."""
    marked, files = without_files(messages)
    return Example(
        messages=tuple(marked),
        tools=read_tools(row, source),
        chat_template_kwargs=_variables(row, source),
        weight=row_weight(row, source),
        margin=_margin(row, source),
        source=source,
        images=_media(row, "images", files, source),
        videos=_media(row, "videos", files, source),
        audios=_media(row, "audios", files, source),
        objects=_objects(row, source),
        **fields,
    )


def _objects(row: Row, source: Source) -> tuple[Mapping[str, Any], ...]:
    """Return the names and boxes of things in images: a list of objects, also as text.

    Only a value whose items have a caption or a box is meant so; other columns of that name are the source's own.
    """
    value = row.get("objects")
    value = parse_nested(value) if isinstance(value, str) else value
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)) or not all(
        isinstance(item, Mapping) and ("bbox" in item or "caption" in item) for item in items
    ):
        return ()
    return tuple({str(key): v for key, v in item.items() if v is not None} for item in items)


def row_weight(row: Row, source: Source) -> float:
    """Return the loss weight of a row: a number in ``weight``, also one that is written as text; else 1.

    Raises:
        DataError: it is negative or not finite.
    """
    value = row.get("weight") if is_weight(row.get("weight")) else 1.0
    weight = float(value) if isinstance(value, (int, float, str)) else 1.0
    if not 0 <= weight < math.inf:
        raise fault(source, "must be a number of at least 0", "weight", "wrong_type")
    return weight


def _margin(row: Row, source: Source) -> float:
    """Return by how much a preference is meant: a number in ``margin``, also one that is written as text; else 0.

    Raises:
        DataError: it is not finite.
    """
    value = row.get("margin") if is_weight(row.get("margin")) else 0.0
    margin = float(value) if isinstance(value, (int, float, str)) else 0.0
    if not math.isfinite(margin):
        raise fault(source, "must be a finite number", "margin", "wrong_type")
    return margin


def is_weight(value: object) -> bool:
    """Whether the value of a column ``weight`` or ``margin`` is meant as one; what is no number is another column's business."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _variables(row: Row, source: Source) -> Mapping[str, Any]:
    value = row.get("chat_template_kwargs")
    value = parse_nested(value) if isinstance(value, str) else value
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise fault(
            source,
            f"must be an object of template variables, but is {kind_of(value)}",
            "chat_template_kwargs",
            "wrong_type",
        )
    # Tables fill the variables of other rows with null.
    return {str(key): item for key, item in value.items() if item is not None}


def _media(
    row: Row, field: str, inside: Mapping[str, Sequence[str]], source: Source
) -> tuple[str, ...]:
    """Return the files of a column, or those that stand inside the turns."""
    value = row.get(field)
    if isinstance(value, str):
        value = parse_nested(value) if value.strip() else []
    try:
        listed = tuple(media_paths(value, field))
    except BadMediaError as error:
        raise fault(source, str(error), field, error.rule) from error
    found = tuple(inside.get(field, ()))
    if listed and found and listed != found:
        raise fault(source, "stands beside files in the turns; keep one", field, "files_twice")
    return listed or found
