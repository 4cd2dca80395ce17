"""JSON: an array of rows, or one row a line, whichever the text is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

from ft_core.errors import DataError
from ft_core.examples import Source as Origin
from ft_data.file_kinds.rows import SKIPPED, RawRow, Wanted, everything, fault, lines_of
from ft_data.storage import DataFile


def read_json(stream: BinaryIO, file: DataFile, wanted: Wanted = everything) -> Iterator[RawRow]:
    """Read rows; the ending doesn't decide whether they are an array or lines.

    ``NaN`` is no value, as ``null`` is none.

    Raises:
        DataError: invalid JSON, with line and column.
    """
    lines = lines_of(stream, file.shown)
    begin: list[str] = []
    for line in lines:
        begin.append(line)
        if line.strip():
            break
    else:
        return
    if begin[-1].lstrip().startswith("["):
        # An array, unless the first line is JSON by itself and more follows.
        begin += next(([*blank, line] for blank, line in _skipping(lines)), [])
        if file.kind == ".json" or not _is_row_alone(begin):
            yield from _array("".join(chain(begin, lines)), file.shown, wanted)
            return
    yield from _lines(chain(begin, lines), file, wanted)


def _skipping(lines: Iterator[str]) -> Iterator[tuple[list[str], str]]:
    """Give each line that isn't blank with the blank ones before it."""
    blank: list[str] = []
    for line in lines:
        if line.strip():
            yield blank, line
            blank = []
        else:
            blank.append(line)


def _is_row_alone(begin: Sequence[str]) -> bool:
    texts = [line for line in begin if line.strip()]
    if len(texts) < 2:
        return False
    try:
        json.loads(texts[0])
    except (ValueError, RecursionError):
        return False
    return True


class _Repeated(dict[str, Any]):
    """An object in which a key stands twice."""

    key: str = ""


class _Decoder:
    """Reads JSON and remembers whether a key stood twice in an object since it was asked."""

    def __init__(self) -> None:
        self.repeated = False
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=_not_a_number
        )

    def decode(self, text: str) -> Any:
        self.repeated = False
        return self._decoder.decode(text)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) == len(pairs):
            return row
        self.repeated = True
        seen: set[str] = set()
        marked = _Repeated(row)
        marked.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return marked


def _not_a_number(name: str) -> float | None:
    return None if name == "NaN" else float(name.replace("Infinity", "inf"))


def _lines(lines: Iterator[str], file: DataFile, wanted: Wanted) -> Iterator[RawRow]:
    decoder = _Decoder()
    position = -1
    for number, line in enumerate(lines, start=1):
        text = line.strip(" \t\r\n")
        if not text:
            continue
        position += 1
        if not wanted(position):
            yield SKIPPED
            continue
        try:
            row = decoder.decode(text)
        except (RecursionError, ValueError) as error:
            raise _invalid(error, file, number) from error
        yield (
            _checked(row, file.shown, number) if decoder.repeated else row,
            Origin(file.shown, number),
        )


def _array(text: str, shown: str, wanted: Wanted) -> Iterator[RawRow]:
    decoder = _Decoder()
    try:
        rows = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise _invalid_at(error, shown, error.lineno, error.colno) from error
    except (RecursionError, ValueError) as error:
        # ValueError: a number with more digits than Python converts.
        raise fault(f"invalid JSON: {error}", shown, "invalid_json", 1) from error
    for index, row in enumerate(rows, start=1):
        if wanted(index - 1):
            yield _checked(row, shown, index) if decoder.repeated else row, Origin(shown, index)
        else:
            yield SKIPPED


def _checked(row: Any, shown: str, number: int) -> Any:
    """Return the row, or in its place an error if a key stands twice in one of its objects."""
    found = _find_repeated(row)
    if found is None:
        return row
    return DataError(
        "stands twice in one object, so it is unclear which value counts; leave one out",
        path=shown,
        line=number,
        field=found,
        rule="duplicate_key",
    )


def _find_repeated(value: Any) -> str | None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Repeated):
            return item.key
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return None


def _invalid(error: Exception, file: DataFile, line: int) -> DataError:
    if whole := _whole_object(file):
        return fault(whole, file.shown, "not_rows")
    if isinstance(error, json.JSONDecodeError):
        return _invalid_at(error, file.shown, line, error.colno)
    return fault(f"invalid JSON: {error}", file.shown, "invalid_json", line)


def _invalid_at(error: json.JSONDecodeError, shown: str, line: int, column: int) -> DataError:
    message = f"invalid JSON at line {line} column {column}: {error.msg}"
    return fault(message, shown, "invalid_json", line)


def _whole_object(file: DataFile) -> str | None:
    """Say what is wrong with a file that is one object over several lines; ``None`` if it isn't that."""
    try:
        with file.open() as stream:
            data = json.loads("".join(lines_of(stream, file.shown)))
    except (ValueError, RecursionError, DataError):
        return None
    lists = (
        [key for key, value in data.items() if isinstance(value, list)]
        if isinstance(data, dict)
        else []
    )
    hint = f"; the rows seem to be in {lists[0]!r}: save that array alone" if lists else ""
    return f"holds one object instead of an array of rows{hint}"
