"""Tables as text: cells separated by commas, semicolons or tabs, under a header."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from ft_core.errors import DataError
from ft_core.examples import Source as Origin
from ft_data.file_kinds.rows import SKIPPED, RawRow, Wanted, everything, fault, lines_of
from ft_data.storage import DataFile

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

_NO_VALUE: Final = frozenset({"", "nan", "NaN"})
"""Cells without a value: empty ones, and what pandas writes for a missing one."""

_LINE: Final = re.compile(r"(?<=\r)(?!\n)")


def read_separated(
    stream: BinaryIO, file: DataFile, wanted: Wanted = everything
) -> Iterator[RawRow]:
    """Read a table with a header; an empty cell is no value, except in ``system``, and so is ``NaN``.

    Raises:
        DataError: an open quote, a NUL character, or a header with an empty or repeated name.
    """
    lines = _lines(stream, file.shown)
    first = next(lines, None)
    if first is None:
        return
    limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(
        _after(first, lines), strict=True, delimiter=_delimiter(first, file), skipinitialspace=False
    )
    try:
        yield from _rows(reader, file.shown, wanted)
    except csv.Error as error:
        raise fault(f"invalid csv: {error}", file.shown, "invalid_csv", reader.line_num) from error
    finally:
        csv.field_size_limit(limit)


def _lines(stream: BinaryIO, shown: str) -> Iterator[str]:
    for number, line in enumerate(lines_of(stream, shown), start=1):
        if "\0" in line:
            raise fault("invalid csv: holds a NUL character", shown, "invalid_csv", number)
        if line.count("\r") > line.endswith("\r\n"):
            yield from (part for part in _LINE.split(line) if part)
        else:
            yield line


def _after(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str, file: DataFile) -> str:
    """Return what separates the cells: some programs write semicolons or tabs into csv files."""
    if file.kind == ".tsv":
        return "\t"
    if "," in header:
        return ","
    return next((mark for mark in (";", "\t") if mark in header), ",")


def _rows(reader: CsvReader, shown: str, wanted: Wanted) -> Iterator[RawRow]:
    header = next(reader, [])
    if len(set(header)) != len(header) or not all(name.strip() for name in header):
        names = ", ".join(header)
        message = f"the header has an empty or repeated column name: {names}"
        raise fault(message, shown, "invalid_csv", 1)
    line = reader.line_num + 1
    position = -1
    for cells in reader:
        origin = Origin(shown, line)
        line = reader.line_num + 1
        if not cells:
            continue
        position += 1
        if not wanted(position):
            yield SKIPPED
            continue
        if len(cells) != len(header):
            what = f"{len(cells)} cells under a header of {len(header)} columns"
            yield DataError(what, path=shown, line=origin.line, rule="wrong_cells"), origin
            continue
        row = {
            name: None if cell in _NO_VALUE and (cell or name != "system") else cell
            for name, cell in zip(header, cells, strict=True)
        }
        yield row, origin
