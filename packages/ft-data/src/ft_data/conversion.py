"""Bringing rows of a registered data set into one of the shapes that are read: what its registration says.

A registration renames columns, names the keys of its conversations, or has a function for its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, Literal, cast

from ft_core.errors import DataError, UsageError, suggest
from ft_core.examples import Source as Origin
from ft_core.registry import load_object
from ft_data.files import RawRow
from ft_data.formats import Row, kind_of
from ft_data.formats.media import MEDIA, BadMediaError, media_paths
from ft_data.formats.shape import parse_nested

Convert = Callable[[Row], Row | Iterable[Row] | None]
"""Makes rows in a shape that is read of one row of a source: one, several, or none where it is no part of the set.

For a row it can't use it raises ``BadRowError``; ``ValueError``, ``TypeError`` and ``LookupError`` mean the same.
"""

_BESIDE = frozenset(
    {
        *MEDIA,
        *(
            "system",
            "tools",
            "objects",
            "chat_template_kwargs",
            "label",
            "kto_tag",
            "weight",
            "margin",
            "tag",
        ),
        *("rejected", "rejected_response", "rejected_messages"),
    }
)
"""Columns that may stand beside a conversation."""
_QUESTIONS = frozenset({"instruction", "input", "prompt"})
_ANSWERS = frozenset(
    {
        *("output", "completion", "text", "chosen", "rejected"),
        *("messages", "conversations", "conversation"),
    }
)


class BadRowError(ValueError):
    """A row that a data set's function can't use.

    Args:
        message: what is wrong.
        field: the column.
        rule: a short name of the broken rule.
    """

    def __init__(self, message: str, field: str | None = None, rule: str = "not_converted") -> None:
        super().__init__(message)
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Conversations:
    """How a data set's conversations are written.

    Attributes:
        user_role, assistant_role, system_role, tool_role: what it calls the speakers; other usual names of them are
            understood too.
        conversations_key: the column with the list of turns.
        from_key, value_key: the keys of a turn.
        error_strategy: ``delete`` drops rows that break a rule also where ``--check_dataset_strategy error`` would
            stop, since it is known that there are some.
        media_type: what ``media_key`` holds.
        media_key: the column with images, videos or audios.
    """

    user_role: str = "user"
    assistant_role: str = "assistant"
    system_role: str = "system"
    tool_role: str = "tool"
    conversations_key: str = "conversations"
    from_key: str = "from"
    value_key: str = "value"
    error_strategy: Literal["raise", "delete"] = "raise"
    media_type: Literal["image", "video", "audio"] | None = None
    media_key: str | None = None

    @classmethod
    def from_json(cls, keys: object, where: str) -> Conversations:
        """Read the form that registrations in JSON have; ``where`` is their place in messages.

        Raises:
            UsageError: a key or a value that doesn't exist.
        """
        known = {item.name for item in fields(cls)}
        if not isinstance(keys, Mapping):
            raise UsageError(f"{where}: must be an object of keys, but is {kind_of(keys)}")
        for name, value in keys.items():
            if name not in known:
                raise UsageError(f"{where}: unknown key {name!r}.{suggest(str(name), known)}")
            if not isinstance(value, str) and not (name.startswith("media") and value is None):
                raise UsageError(f"{where}: {name} must be a text, but is {kind_of(value)}")
        settings = cls(**cast("dict[str, Any]", dict(keys)))
        if settings.error_strategy not in ("raise", "delete"):
            raise UsageError(
                f"{where}: error_strategy {settings.error_strategy!r} must be raise or delete"
            )
        if settings.media_type not in (None, "image", "video", "audio"):
            raise UsageError(
                f"{where}: media_type {settings.media_type!r} must be image, video or audio"
            )
        if (settings.media_type is None) != (settings.media_key is None):
            raise UsageError(f"{where}: media_type and media_key go together; give both or none")
        return settings

    def roles(self) -> dict[str, str]:
        """Return what each of its speakers is."""
        return {
            self.tool_role: "tool",
            self.system_role: "system",
            self.assistant_role: "assistant",
            self.user_role: "user",
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to each row of a source.

    Attributes:
        columns: renamed columns, old → new; a new name of ``"-"`` drops the column.
        conversations: how conversations are written.
        convert: a function for rows, or where one is: ``module:attribute``.
        together: the column whose equal values in rows that follow each other make them one: ``convert`` is given
            ``{"rows": [...]}``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    conversations: Conversations | None = None
    convert: Convert | str | None = None
    together: str | None = None

    @property
    def changes_rows(self) -> bool:
        """Whether anything is done to them."""
        return bool(self.columns or self.conversations or self.convert)

    def apply(self, rows: Iterable[RawRow]) -> Iterable[RawRow]:
        """Return the rows in a shape that is read; where a row can't be brought into one stands a ``DataError``."""
        steps = self._steps()
        if not steps:
            return rows
        return _converted(rows if self.together is None else _joined(rows, self.together), steps)

    def _steps(self) -> list[Convert]:
        """Renamed columns say all there is to say about conversations."""
        steps: list[Convert] = []
        if self.columns:
            steps.append(lambda row: rename(row, self.columns))
        elif self.conversations is not None:
            settings = self.conversations
            steps.append(lambda row: with_messages(row, settings))
        if self.convert is not None:
            given = self.convert
            steps.append(
                cast(Convert, load_object(given)) if isinstance(given, str) else given,
            )
        return steps


def rename(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the row with renamed columns.

    A column that takes a new name replaces one that has it. Where question or answer are named, what else could be
    taken for one is left out.
    """
    given = set(columns.values())
    dropped = (_ANSWERS if "response" in given else frozenset()) | (
        _QUESTIONS if "query" in given else frozenset()
    )
    kept = {k: v for k, v in row.items() if k not in columns and k not in dropped - given}
    kept.update({columns[name]: value for name, value in row.items() if name in columns})
    kept.pop("-", None)
    for name in MEDIA & given & kept.keys():
        kept[name] = media_paths(kept[name], name)
    return kept


def with_messages(row: Row, settings: Conversations) -> dict[str, Any]:
    """Return the row with its conversation as ``messages`` and what belongs to it."""
    key = settings.conversations_key
    turns = row.get(key)
    turns = parse_nested(turns) if isinstance(turns, str) else turns
    if not isinstance(turns, (list, tuple)):
        what = "there is none" if turns is None else f"it is {kind_of(row[key])}"
        raise BadRowError(f"must be a list of turns, but {what}", key, "wrong_type")
    made = {name: value for name, value in row.items() if name in _BESIDE}
    if not isinstance(made.get("label"), bool):
        made.pop("label", None)  # a KTO judgement, or else something of the source's own
    made["messages"] = [_turn(turn, f"{key}[{n}]", settings) for n, turn in enumerate(turns)]
    if settings.media_type is not None and settings.media_key is not None:
        column = f"{settings.media_type}s"
        made[column] = media_paths(row.get(settings.media_key), settings.media_key)
    return made


def _turn(turn: object, where: str, settings: Conversations) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise BadRowError(f"must be an object, but is {kind_of(turn)}", where, "wrong_type")
    speaker = turn.get(settings.from_key)
    if not isinstance(speaker, str):
        raise BadRowError(f"has no {settings.from_key!r} that names the speaker", where, "no_role")
    ours = {settings.from_key, settings.value_key}
    rest = {name: value for name, value in turn.items() if name not in ours}
    role = settings.roles().get(speaker, speaker)
    return {**rest, "role": role, "content": turn.get(settings.value_key)}


def _converted(rows: Iterable[RawRow], steps: list[Convert]) -> Iterator[RawRow]:
    for row, origin in rows:
        if not isinstance(row, dict):
            yield row, origin
            continue
        try:
            made: list[Row] = [row]
            for step in steps:
                made = [new for old in made for new in _as_rows(step(old))]
        except DataError as error:
            yield error, origin
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            yield _fault(error, origin), origin
        else:
            yield from ((dict(new), origin) for new in made)


def _as_rows(made: Row | Iterable[Row] | None) -> Iterable[Row]:
    if made is None:
        return ()
    return (made,) if isinstance(made, Mapping) else list(made)


def _fault(error: Exception, origin: Origin) -> DataError:
    if isinstance(error, (BadRowError, BadMediaError)):
        message, column, rule = str(error), error.field, error.rule
    else:
        message = f"the data set's function can't use this row ({type(error).__name__}: {error})"
        column, rule = None, "not_converted"
    return DataError(message, path=origin.path, line=origin.line, field=column, rule=rule)


def _joined(rows: Iterable[RawRow], column: str) -> Iterator[RawRow]:
    """Make one row of those that follow each other with an equal value in a column."""
    for key, group in groupby(rows, key=lambda item: _value(item[0], column)):
        members = list(group)
        if key is None:
            yield from members
        else:
            yield {"rows": [row for row, _ in members]}, members[0][1]


def _value(row: object, column: str) -> object:
    return row.get(column) if isinstance(row, dict) else None
