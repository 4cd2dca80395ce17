"""Rows that hold whole conversations: messages, conversations, rounds, and other lists of turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ft_core.examples import Example, Message, Source
from ft_data.formats.shape import Format, Row, columns, has, parse_nested
from ft_data.formats.shared import example, with_system
from ft_data.formats.turns import looks_like_talk, read_talk

TALKS: Final = ("messages", "conversations", "conversation")
"""Columns that hold conversations."""

OTHER_TALKS: Final = (
    *("dialogue", "dialog", "dialogs", "dialogues", "chat", "chats", "turns", "rounds"),
    *("chat_rounds", "message_list", "data", "对话", "会话"),
)
"""Columns that hold one if their value looks like one."""


def read_column(row: Row, name: str, source: Source) -> list[Message]:
    """Read the conversation in a column, with the row's system message.

    Raises:
        DataError: with the position as field.
    """
    return with_system(read_talk(row[name], name, source), row, source)


def _column(name: str, summary: str, *, format_name: str | None = None) -> Format:
    def matches(row: Row) -> str | None:
        return columns(name) if has(row, name) else None

    def read(row: Row, source: Source) -> Example:
        return example(read_column(row, name, source), row, source)

    return Format(format_name or name, summary, matches, read)


MESSAGES = _column("messages", "messages: list of turns with role/content")
CONVERSATIONS = _column("conversations", "conversations: list of turns with from/value")
SHAREGPT = _column(
    "conversation",
    "conversation: list of rounds with human and assistant",
    format_name="sharegpt",
)


def _other(row: Row) -> str | None:
    return next((name for name in OTHER_TALKS if looks_like_talk(row.get(name))), None)


def _matches_other(row: Row) -> str | None:
    name = _other(row)
    return None if name is None else f"{columns(name)} with a list of turns"


def _read_other(row: Row, source: Source) -> Example:
    name = _other(row)
    assert name is not None  # _matches_other found it
    return example(read_column(row, name, source), row, source)


DIALOGUE = Format(
    "dialogue",
    "dialogue, chat, turns or data: list of turns, rounds, pairs or texts that take turns",
    _matches_other,
    _read_other,
)


def talk_column(row: Row) -> str | None:
    """Return the column with a row's conversation."""
    return next((name for name in TALKS if has(row, name)), None) or _other(row)


def names_speakers(row: Row) -> bool:
    """Whether the turns of a ``dialogue`` say who speaks."""
    name = _other(row)
    value = None if name is None else row[name]
    first = (parse_nested(value) if isinstance(value, str) else value or [None])[0]
    return isinstance(first, Mapping)
