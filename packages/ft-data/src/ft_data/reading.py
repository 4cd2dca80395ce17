"""Reading one source: recognising the shape of its rows, and reading each of them."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_core.examples import Source as Origin
from ft_data import formats
from ft_data.arguments import CheckStrategy
from ft_data.finding import find_rows
from ft_data.identity import Identity
from ft_data.recognition import Shape, check_object, recognise
from ft_data.report import RowFault, SourceReport, summary
from ft_data.sources import Source, format_source


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
    shape, rows = recognise(found.rows, named=found.named)
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
        notes=(*found.notes, *shape.notes),
    )
    return good, report


def _read_row(given: object, origin: Origin, shape: Shape, require_answer: bool) -> Example:
    row = shape.usual(check_object(given, origin))
    found = formats.find(row, shape.without)
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
