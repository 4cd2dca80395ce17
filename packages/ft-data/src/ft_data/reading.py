"""Reading one source: recognising the shape of its rows, and reading each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_core.examples import Source as Origin
from ft_data import formats
from ft_data.arguments import CheckStrategy
from ft_data.files import RawRow
from ft_data.finding import find_rows
from ft_data.identity import Identity
from ft_data.report import RowFault, SourceReport, summary
from ft_data.sources import Source, format_source

HEAD = 100
"""How many of the first rows are looked at to recognise the shape of all."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a source's rows.

    Attributes:
        form: the shape.
        reason: why they have it.
        origin: the place of the row that showed it.
    """

    form: formats.Format
    reason: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads the rows of one source.

    Attributes:
        shape: the shape that they have.
        stops: whether a row that breaks a rule is an error.
        require_answer: whether a row without an answer breaks a rule.
    """

    shape: Shape
    stops: bool = False
    require_answer: bool = True

    def read(self, row: object, origin: Origin) -> Example | RowFault:
        """Return the row, or why it is left out.

        Raises:
            DataError: it has another shape than the first rows, or breaks a rule where that stops.
        """
        try:
            return _read_row(row, origin, self.shape, self.require_answer)
        except DataError as error:
            if self.stops or error.rule == "mixed_formats":
                raise
            return RowFault.of(error)


def read_source(
    source: Source,
    *,
    check: CheckStrategy = "none",
    require_answer: bool = True,
    identity: Identity | None = None,
) -> tuple[list[Example], SourceReport]:
    """Read all good rows of one source, unsampled; arguments and errors are those of ``load``."""
    found = find_rows(source, identity)
    shape, rows = recognise(found.rows)
    reader = RowReader(shape, check == "error" and not found.expects_bad_rows, require_answer)
    good: list[Example] = []
    faults: list[RowFault] = []
    for row, origin in rows:
        read = reader.read(row, origin)
        if isinstance(read, RowFault):
            faults.append(read)
        else:
            good.append(read)
    shown = format_source(source)
    total = len(good) + len(faults)
    if not good:
        raise DataError(
            f"dataset {shown}: none of its {total:,} rows can be used ({summary(faults)})",
            rule="no_good_rows",
        )
    report = SourceReport(
        shown,
        shape.form.name,
        shape.reason,
        total,
        tuple(faults),
        used=len(good),
        each=check in ("warning", "discard"),
        notes=found.notes,
    )
    return good, report


def recognise(rows: Iterable[RawRow]) -> tuple[Shape, Iterator[RawRow]]:
    """Recognise the shape of rows by the first of them.

    Returns:
        The shape, and all the rows.

    Raises:
        DataError: there are no rows, or they have no shape that is read.
    """
    left = iter(rows)
    head = list(islice(left, HEAD))
    return _shape(head), chain(head, left)


def _shape(head: list[RawRow]) -> Shape:
    for row, origin in head:
        if isinstance(row, dict) and (found := formats.find(row)):
            return Shape(found.format, found.reason, origin)
    if not head:
        raise DataError("none of its rows is part of the data set", rule="no_good_rows")
    row, origin = head[0]
    _check_object(row, origin)
    message = formats.undetected(row)
    raise DataError(message, path=origin.path, line=origin.line, rule="unknown_format")


def _check_object(row: object, origin: Origin) -> None:
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict):
        raise DataError(
            f"a row must be an object of columns, but is {formats.kind_of(row)}",
            path=origin.path,
            line=origin.line,
            rule="wrong_type",
        )


def _read_row(row: object, origin: Origin, shape: Shape, require_answer: bool) -> Example:
    _check_object(row, origin)
    assert isinstance(row, dict)
    found = formats.find(row)
    if found is None or (
        found.format is not shape.form and formats.lacks(shape.form, found.format)
    ):
        raise DataError(
            f"has not the columns of {shape.form.name}: {shape.form.summary}",
            path=origin.path,
            line=origin.line,
            rule="missing_columns",
        )
    if found.format is not shape.form:
        raise DataError(
            f"mixed formats: this row is {found.format.name} because {found.reason}, but {shape.origin} is "
            f"{shape.form.name} because {shape.reason}; put them into two files",
            path=origin.path,
            line=origin.line,
            rule="mixed_formats",
        )
    return formats.read(shape.form, row, origin, require_answer=require_answer)
