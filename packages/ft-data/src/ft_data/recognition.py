"""Recognising how the rows of a source are written, by the first of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Final

from ft_core.errors import DataError
from ft_core.examples import Example, Message, Role
from ft_core.examples import Source as Origin
from ft_data import formats, threads
from ft_data.column_names import usual_names
from ft_data.files import RawRow
from ft_data.formats import Detection, Format, Row
from ft_data.formats.choice import LABELS, as_label
from ft_data.formats.conversation import talk_column
from ft_data.formats.question import ANSWERS
from ft_data.formats.roles import infer_speakers, with_roles
from ft_data.formats.shape import parse_nested
from ft_data.formats.shared import is_weight
from ft_data.identity import left_open
from ft_data.threads import are_messages_of_trees, best_threads

HEAD: Final = 100
"""How many of the first rows are looked at."""

_COMPARED: Final = 20
"""How many of them are read in several shapes, where several fit."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a source are written.

    Attributes:
        form: the shape they have.
        reason: why they have it.
        origin: the place of the row that showed it.
        columns: columns with other names than the shape's, and the shape's name of each.
        speakers: speakers with names of their own, and the role of each.
        without: shapes they don't have although single rows look like it.
        weighed: whether they have weights.
        threads: whether several of them, each a message, are one conversation.
        placeholders: a sentence about names that are still to be filled in.
    """

    form: Format
    reason: str
    origin: Origin
    columns: Mapping[str, str] = field(default_factory=dict)
    speakers: Mapping[str, Role] = field(default_factory=dict)
    without: tuple[Format, ...] = ()
    weighed: bool = False
    threads: bool = False
    placeholders: str | None = None

    def together(self, rows: Iterable[RawRow]) -> Iterable[RawRow]:
        """Return the rows of a source with those as one that are one conversation."""
        return best_threads(rows) if self.threads else rows

    def usual(self, row: Row) -> Row:
        """Return a row with the usual names for columns and speakers."""
        if self.columns:
            row = {self.columns.get(name, name): value for name, value in row.items()}
        if self.speakers and (talk := _talk(row)) is not None:
            column, turns = talk
            row = {**row, column: with_roles(turns, self.speakers)}
        return row

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about how rows are read."""
        notes = []
        if self.columns:
            pairs = ", ".join(f"{old!r} as {new}" for old, new in self.columns.items())
            notes.append(f"columns are read by other names: {pairs}")
        if self.speakers:
            pairs = ", ".join(f"{name!r} is the {role}" for name, role in self.speakers.items())
            notes.append(f"speakers are told by who begins: {pairs}")
        if self.weighed:
            notes.append("the column 'weight' scales the loss of a row")
        if self.threads:
            notes.append(threads.NOTE)
        if self.placeholders is not None:
            notes.append(self.placeholders)
        return tuple(notes)


def recognise(rows: Iterable[RawRow], *, named: bool = False) -> tuple[Shape, Iterator[RawRow]]:
    """Recognise the shape of rows by the first of them.

    Args:
        rows: the rows of a source.
        named: whether their columns have the usual names, so that none is read as another.

    Returns:
        The shape, and all the rows.

    Raises:
        DataError: there are no rows, they have no shape that is read, or several that say different things; the
            message lists the columns seen and the shapes.
    """
    left = iter(rows)
    head = list(islice(left, HEAD))
    shape = _shape(head, named=named)
    return shape, iter(shape.together(chain(head, left)))


def detect(row: Row, source: Origin | None = None) -> Detection:
    """Recognise the shape of a row by its columns.

    Args:
        row: columns and their values.
        source: its place, for errors.

    Raises:
        DataError: as for ``recognise``.
    """
    shape = _shape([(dict(row), source or Origin("row"))])
    return Detection(shape.form, shape.reason)


def check_object(row: object, origin: Origin) -> Row:
    """Return a row that was read, if it is an object of columns.

    Raises:
        DataError: it is none, or couldn't be read.
    """
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, Mapping):
        raise DataError(
            f"a row must be an object of columns, but is {formats.kind_of(row)}",
            path=origin.path,
            line=origin.line,
            rule="wrong_type",
        )
    return row


def _shape(head: Sequence[RawRow], *, named: bool = False) -> Shape:
    given: list[tuple[dict[str, Any], Origin]] = [
        (row, origin) for row, origin in head if isinstance(row, dict)
    ]
    if not head:
        raise DataError("none of its rows is part of the data set", rule="no_good_rows")
    if not given:
        check_object(*head[0])
    if are_messages_of_trees([row for row, _ in given]):
        return replace(_shape(list(best_threads(given))), threads=True)
    names = {} if named else usual_names([row for row, _ in given])
    rows: list[tuple[Row, Origin]] = [
        ({names.get(name, name): value for name, value in row.items()}, origin)
        for row, origin in given
    ]
    without = _no_judgements([row for row, _ in rows])
    found, origin = _most(rows, without)
    _check_one_meaning(rows, found.format, without, {new: old for old, new in names.items()})
    return Shape(
        found.format,
        found.reason,
        origin,
        names,
        infer_speakers(talk[1] for row, _ in rows if (talk := _talk(row)) is not None),
        without,
        any(is_weight(row.get("weight")) for row, _ in rows),
        placeholders=None if found.format in formats.PLAIN else left_open(row for row, _ in rows),
    )


def _most(
    rows: Sequence[tuple[Row, Origin]], without: Collection[Format]
) -> tuple[Detection, Origin]:
    """Return the shape that most rows have, with the first row that has it."""
    found = [
        (detection, origin) for row, origin in rows if (detection := formats.find(row, without))
    ]
    if not found:
        row, origin = rows[0]
        raise DataError(
            formats.undetected(row), path=origin.path, line=origin.line, rule="unknown_format"
        )
    counts = Counter(detection.format.name for detection, _ in found)
    ((name, _),) = counts.most_common(1)
    return next(item for item in found if item[0].format.name == name)


def _no_judgements(rows: Sequence[Row]) -> tuple[Format, ...]:
    """Leave labels alone that hold other values than true and false: classes, stars or the like."""
    values = [row[name] for row in rows for name in LABELS if row.get(name) is not None]
    return (formats.LABELLED,) if any(as_label(value) is None for value in values) else ()


def _talk(row: Row) -> tuple[str, list[Any]] | None:
    column = talk_column(row)
    value = None if column is None else row[column]
    value = parse_nested(value) if isinstance(value, str) else value
    return (column, list(value)) if column and isinstance(value, (list, tuple)) else None


def _check_one_meaning(
    rows: Sequence[tuple[Row, Origin]],
    form: Format,
    without: Collection[Format],
    given: Mapping[str, str],
) -> None:
    """Refuse rows that hold two different conversations, each in columns of its own; ``given`` names columns."""
    for row, origin in rows[:_COMPARED]:
        if form.matches(row) is None or formats.fits(form, row) > formats.COMPLETE:
            continue
        _check_one_answer(row, form, origin, given)
        said = _turns(form, row, origin)
        for rival in formats.FORMATS:
            if rival is form or rival in (*formats.PLAIN, formats.DIALOGUE, *without):
                continue
            reason = rival.matches(row)
            if reason is None or formats.fits(rival, row) < max(formats.fits(form, row), 1):
                continue
            other = _turns(rival, row, origin)
            if said and other and not (_within(said, other) or _within(other, said)):
                both = f"{form.name} ({form.matches(row)}) and {rival.name} ({reason})"
                raise _ambiguous(row, origin, given, both)


def _check_one_answer(row: Row, form: Format, origin: Origin, given: Mapping[str, str]) -> None:
    """Refuse an answer that may be in two columns, unless one of them is what a documented shape calls it."""
    if form.pair is None or (form is not formats.QUESTION and formats.fits(form, row) != 1):
        return
    answers = {name: row[name] for name in (*ANSWERS, "solution") if row.get(name) is not None}
    if len({str(value) for value in answers.values()}) > 1:
        either = " or ".join(given.get(name, name) for name in answers)
        raise _ambiguous(row, origin, given, f"{form.name} with the answer in {either}")


def _turns(form: Format, row: Row, origin: Origin) -> list[tuple[str, str]] | None:
    try:
        example: Example = form.read(row, origin)
    except DataError:
        return None
    return [_said(message) for message in example.messages if message.role != "system"]


def _said(message: Message) -> tuple[str, str]:
    return message.role, message.text.strip()


def _within(part: Sequence[Any], whole: Sequence[Any]) -> bool:
    """Whether a conversation is part of another."""
    return any(
        list(whole[start : start + len(part)]) == list(part)
        for start in range(len(whole) - len(part) + 1)
    )


def _ambiguous(row: Row, origin: Origin, given: Mapping[str, str], shapes: str) -> DataError:
    columns = ", ".join(repr(given.get(name, name)) for name in row)
    return DataError(
        f"it is unclear what this row says: its columns {columns} fit {shapes}, which differ; leave "
        "columns out, or drop them with --custom_dataset_info "
        '\'{"NAME": {"dataset_path": "FILE", "columns": {"COLUMN": "-"}}}\'',
        path=origin.path,
        line=origin.line,
        rule="ambiguous_format",
    )
