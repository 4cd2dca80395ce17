"""Rows of evaluation sets: CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.errors import DataError, Place
from ft_eval.text_files import read_utf8

ENDINGS = (".csv", ".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read.

    Attributes:
        values: by column.
        place: its file and line.
    """

    values: Mapping[str, Any]
    place: Place

    def text(self, name: str, default: str | None = None) -> str:
        """Return a column as text; numbers are written out.

        Raises:
            DataError: it is missing, or no text.
        """
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            self.fail(
                f"is missing; the row has {', '.join(self.values) or 'no columns'}",
                name,
                "missing_column",
            )
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.fail(f"is {type(value).__name__}; it must be a text", name, "wrong_type")
        return str(value).strip()

    def fail(self, message: str, field: str, rule: str) -> Any:
        """Raise a ``DataError`` at this row."""
        raise DataError(message, path=self.place.path, line=self.place.line, field=field, rule=rule)


def read_rows(file: Path) -> list[Row]:
    """Read a .csv, .jsonl or .json file.

    Raises:
        DataError: it can't be read, holds no rows, or a row is none.
    """
    text = read_utf8(file)
    read = {".csv": _csv, ".jsonl": _lines, ".json": _array}[file.suffix]
    rows = list(read(text, file))
    if not rows:
        raise DataError("holds no rows", path=str(file), rule="empty_file")
    return rows


def _csv(text: str, file: Path) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        for values in reader:
            place = Place(str(file), reader.line_num)
            if "" in values:
                raise DataError(
                    f"has more cells than the header's {len(reader.fieldnames or ())}; put cells "
                    "with commas into quotes",
                    path=place.path,
                    line=place.line,
                    rule="too_many_cells",
                )
            given = {name.strip(): value for name, value in values.items() if value is not None}
            yield Row(given, place)
    except csv.Error as error:
        raise DataError(
            f"is no CSV: {error}", path=str(file), line=reader.line_num, rule="invalid_csv"
        ) from None


def _lines(text: str, file: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"is not JSON: {error.msg} at column {error.colno}; each line is one JSON object",
                path=str(file),
                line=number,
                rule="invalid_json",
            ) from None
        yield _object(values, Place(str(file), number))


def _array(text: str, file: Path) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"is not JSON: {error.msg}", path=str(file), line=error.lineno, rule="invalid_json"
        ) from None
    if not isinstance(values, list):
        raise DataError("must hold a list of objects", path=str(file), rule="wrong_type")
    for number, item in enumerate(values, start=1):
        yield _object(item, Place(str(file), number))


def _object(values: Any, place: Place) -> Row:
    if not isinstance(values, dict):
        raise DataError(
            f"is {type(values).__name__}; a row is a JSON object",
            path=place.path,
            line=place.line,
            rule="not_an_object",
        )
    return Row(values, place)
