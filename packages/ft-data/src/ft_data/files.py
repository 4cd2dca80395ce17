"""Reading files into rows of plain JSON, each with its place.

A fault of the file as a whole (missing, empty, not what its name says) is a ``DataError`` that is raised here; in
the place of a single row that can't be read stands a ``DataError``. Other faults of rows are found later, when
they are read as examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ft_core.errors import DataError
from ft_data.file_kinds.json_rows import read_json
from ft_data.file_kinds.rows import RawRow, Wanted, everything, later
from ft_data.file_kinds.separated import read_separated
from ft_data.file_kinds.tables import read_arrow, read_parquet
from ft_data.file_kinds.texts import read_text
from ft_data.storage import SUFFIXES, DataFile, FoundFiles, is_data_name, local_file

__all__ = ["SUFFIXES", "RawRow", "is_data_name", "iter_file", "read_file", "rows_of_files"]

_READERS: dict[str, Callable[[BinaryIO, DataFile, Wanted], Iterable[RawRow]]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_separated,
    ".tsv": read_separated,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".txt": read_text,
}


def read_file(path: Path, name: str | None = None) -> list[RawRow]:
    """Read all rows of a local file: json, jsonl, csv, tsv, parquet, arrow or txt, also with gzip, zstd or bz2.

    Args:
        path: the file.
        name: how places in it are called; its path if ``None``.

    Raises:
        DataError: it is missing (close names are listed), a directory, empty, unreadable, or not valid in
            its format (with line and column).
    """
    file = local_file(path, None)
    return list(iter_file(file if name is None else file.called(name)))


def iter_file(file: DataFile) -> Iterator[RawRow]:
    """Read the rows of a file one after the other.

    Raises:
        DataError: it is empty, unreadable, or not valid in its format (with line and column).
    """
    empty = True
    for item in _rows(file):
        empty = False
        yield item
    if empty:
        raise DataError("the file has no rows", path=file.shown, rule="empty_file")


def rows_of_files(found: FoundFiles, wanted: Wanted = everything) -> Iterator[RawRow]:
    """Read the rows of several files one after the other; some of them may be empty.

    Args:
        found: the files.
        wanted: says which rows are read, by their position in all files together, from 0; ``SKIPPED`` stands for
            the others.

    Raises:
        DataError: all are empty, or one is unreadable or not valid in its format.
    """
    position = 0
    for file in found.files:
        for item in _rows(file, later(wanted, position)):
            position += 1
            yield item
    if not position:
        (first, *others) = found.files
        what = f"neither this file nor {len(others):,} others have rows" if others else ""
        raise DataError(what or "the file has no rows", path=first.shown, rule="empty_file")


def _rows(file: DataFile, wanted: Wanted = everything) -> Iterator[RawRow]:
    with file.open() as stream:
        yield from _READERS[file.kind](stream, file, wanted)
