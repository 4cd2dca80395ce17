"""Rows one after the other: the same rows as loaded ones, from any position and shared among readers."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ft_core.errors import DataError, UsageError
from ft_core.examples import Example
from ft_data import Identity, RowFault, RowStream, load, stream

COUNT = 2500
"""More than a batch of a table."""
ROWS = [{"query": f"q{i}", "response": f"a{i}"} for i in range(COUNT)]


def text(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, rows: list[Any] = ROWS) -> str:
    kind = "".join(path.suffixes)
    if kind == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(json.dumps(rows).encode() if kind == ".json" else text(rows)))
    return str(path)


def answers(rows: RowStream, *where: int) -> list[tuple[int, str | None]]:
    found = []
    for item in rows.rows(*where):
        assert isinstance(item.row, Example)
        found.append((item.position, item.row.answer))
    return found


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.jsonl.bz2"]
)
def test_shares_of_readers_are_all_rows(tmp_path: Path, name: str) -> None:
    rows = stream(write(tmp_path / name))
    everything = [(i, f"a{i}") for i in range(COUNT)]
    assert answers(rows) == everything
    assert answers(rows, 7, 3) == everything[7::3]
    assert answers(rows, COUNT - 1) == everything[-1:]
    assert answers(rows, COUNT) == []
    (last,) = list(rows.rows(2000, COUNT))
    (loaded,) = [row for row in load(str(tmp_path / name)) if row.answer == "a2000"]
    assert last.row == loaded


def test_directories_and_documents(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS[:3])
    write(tmp_path / "b.jsonl", ROWS[3:5])
    assert answers(stream(str(tmp_path)), 1, 2) == [(1, "a1"), (3, "a3")]
    (tmp_path / "c").mkdir()
    book = tmp_path / "c" / "book.txt"
    book.write_text("one\n<|endoftext|>\ntwo\n<|endoftext|>\nthree\n")
    (row,) = stream(str(book)).rows(1, 2)
    assert isinstance(row.row, Example)
    assert (row.position, row.row.text, str(row.row.source)) == (1, "two", f"{book}:3")


def test_what_is_passed_over_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text(ROWS[:200]) + b"\n{broken\n" + text(ROWS[200:202]))
    rows = stream(str(path))
    assert answers(rows, 201) == [(201, "a200"), (202, "a201")]
    with pytest.raises(DataError, match=r"a\.jsonl:202: invalid JSON"):
        list(rows.rows(200))


def test_rows_that_are_left_out_have_positions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [ROWS[0], {"query": "q"}, ROWS[2]])
    read = list(stream(path).rows())
    assert [item.position for item in read] == [0, 1, 2]
    fault = read[1].row
    assert isinstance(fault, RowFault)
    assert (fault.rule, str(fault.place)) == ("missing_answer", f"{path}:2: field 'response'")
    with pytest.raises(DataError):
        list(stream(path, check="error").rows())


def test_a_count_takes_the_first_and_begins_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS[:3])
    assert answers(stream(f"{path}#2")) == [(0, "a0"), (1, "a1")]
    seven = [(i, f"a{i % 3}") for i in range(7)]
    assert answers(stream(f"{path}#7")) == seven
    assert answers(stream(f"{path}#7"), 2, 2) == seven[2::2]
    assert answers(stream(f"{path}#7"), 7) == []


def test_registered_rows_are_converted(register: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"n": i} for i in range(4)])

    def twice(row: Any) -> list[dict[str, str]]:
        return [{"query": "q", "response": f"{row['n']}{x}"} for x in "ab"]

    register("doubled", path=path, convert=twice)
    assert answers(stream("doubled"), 1, 3) == [(1, "0b"), (4, "2a"), (7, "3b")]


def test_placeholders_and_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": "Who?", "response": "{{NAME}}"}])
    assert answers(stream(path, identity=Identity.of("Finch"))) == [(0, "Finch")]
    with pytest.raises(UsageError, match="--model_name"):
        stream(path)
    with pytest.raises(DataError, match="no such file"):
        stream(str(tmp_path / "b.jsonl"))
