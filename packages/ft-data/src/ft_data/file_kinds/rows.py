"""A row as it was read, and text of files as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final

from ft_core.errors import DataError
from ft_core.examples import Source as Origin

RawRow = tuple[Any, Origin]
"""A row as it was read, and its place: the line of text files, the row of arrays and tables, from 1.

Where a row can't be read stands a ``DataError`` that says why.
"""

Wanted = Callable[[int], bool]
"""Says of a row by its position in a file, from 0, whether it is read at all."""


class Skipped:
    """Stands in the place of a row that nobody wanted."""


SKIPPED: Final[RawRow] = (Skipped(), Origin("skipped"))
"""What a reader gives for a row that isn't wanted: its text was passed over, not understood."""


def everything(position: int) -> bool:
    """Want each row."""
    return True


def only(rows: Iterable[RawRow], wanted: Wanted) -> Iterator[RawRow]:
    """Put ``SKIPPED`` in the place of rows that aren't wanted."""
    return (row if wanted(position) else SKIPPED for position, row in enumerate(rows))


def later(wanted: Wanted, start: int) -> Wanted:
    """Say of rows by their position after the first ``start`` ones whether they are wanted."""
    return lambda position: wanted(start + position)


_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def lines_of(stream: BinaryIO, shown: str) -> Iterator[str]:
    """Decode a file's lines, with their ends; only a line feed ends one.

    Raises:
        DataError: it is no UTF-8, with the line.
    """
    for number, line in enumerate(stream, start=1):
        if number == 1:
            if line.startswith(_UTF16):
                raise _encoding("is UTF-16 text", shown, 1)
            line = line.removeprefix(_BOM)
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{line[error.start]:02x} at {error.start + 1}"
            raise _encoding(f"is not UTF-8 text ({byte} of the line)", shown, number) from error


def fault(message: str, shown: str, rule: str, line: int | None = None) -> DataError:
    """Return an error about a file."""
    return DataError(message, path=shown, line=line, rule=rule)


def _encoding(what: str, shown: str, line: int) -> DataError:
    return fault(f"{what}; save the file as UTF-8", shown, "invalid_encoding", line)
