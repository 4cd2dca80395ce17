"""Loading files: every kind, every fault, and the counts that must add up."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import DataError, UsageError
from ft_data import DATASETS, DatasetInfo, load, load_split

ROWS = [{"instruction": f"q{index}", "input": "", "output": f"a{index}"} for index in range(10)]
REAL = Path(__file__).parents[4] / "shared" / "data"


def write(path: Path, rows: list[Any]) -> Path:
    """Write rows in the format that the file's ending names."""
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def answers(rows: Any) -> list[str]:
    return [row.answer for row in rows]


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_reads_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"rows.{ending}", ROWS)
    rows = load(str(path))
    assert answers(rows) == [f"a{index}" for index in range(10)]
    first_line = 1 if ending in ("json", "jsonl", "parquet") else 2
    places = [(row.source.path, row.source.line) for row in rows if row.source]
    assert places == [(str(path), first_line + index) for index in range(10)]
    (report,) = rows.report.sources
    assert (report.format, report.read, report.good, report.used) == ("alpaca", 10, 10, 10)
    assert "'instruction' and 'output'" in report.lines()[0]


def test_nested_columns_survive_parquet(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "q", "tool_calls": None},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
    ]
    rows = load(str(write(tmp_path / "rows.parquet", [{"messages": messages}])))
    assert rows[0].messages[1].tool_calls[0].arguments == {"x": 1}


def test_lines_of_multiline_csv_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        'query,response,system\nq,"a\nb\nc",\nq2,"say ""hi"", ok",s\n', encoding="utf-8-sig"
    )
    rows = load(str(path))
    assert answers(rows) == ["a\nb\nc", 'say "hi", ok']
    assert [row.source.line for row in rows if row.source] == [2, 5]
    assert [row.system for row in rows] == ["", "s"]


def test_huge_csv_cell(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"query,response\nq,{'x' * 200_000}\n")
    limit = csv.field_size_limit()
    assert len(answers(load(str(path)))[0]) == 200_000
    assert csv.field_size_limit() == limit


def test_content_decides_between_array_and_lines(tmp_path: Path) -> None:
    lines = tmp_path / "lines.json"
    lines.write_text("\n".join(json.dumps(row) for row in ROWS))
    array = tmp_path / "array.jsonl"
    array.write_text("\ufeff" + json.dumps(ROWS, indent=2))
    assert answers(load(str(lines))) == answers(load(str(array)))
    line_break = tmp_path / "breaks.jsonl"
    line_break.write_text(
        '{"text": "a\u2028b"}\r\n\r\n{"text": "c"}\r\n', newline="", encoding="utf-8"
    )
    rows = load(str(line_break))
    assert [row.text for row in rows] == ["a\u2028b", "c"]
    assert rows[1].source is not None
    assert rows[1].source.line == 3


def file_fault(path: Path | str, rule: str, match: str) -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        load(str(path))
    assert caught.value.rule == rule
    return caught.value


def test_missing_file_lists_close_names(tmp_path: Path) -> None:
    write(tmp_path / "alpaca_rows.jsonl", ROWS)
    file_fault(
        tmp_path / "alpaca_row.jsonl", "missing_file", r"Did you mean .*alpaca_rows\.jsonl\?"
    )
    file_fault(
        tmp_path / "alpaca_rows.json", "missing_file", r"Did you mean .*alpaca_rows\.jsonl\?"
    )
    file_fault(
        tmp_path / "nowhere" / "x.json", "missing_file", "directory .*nowhere does not exist"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", ""),
        ("a.jsonl", " \n\n"),
        ("b.json", "[]"),
        ("a.csv", ""),
        ("b.csv", "query,response\n"),
    ],
)
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    file_fault(tmp_path / name, "empty_file", "no rows")


def test_empty_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    file_fault(tmp_path / "a.parquet", "empty_file", "no rows")


@pytest.mark.parametrize(
    ("name", "content", "rule", "line", "match"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": oops}\n', "invalid_json", 2, "line 2 column 10"),
        ("a.json", '[\n {"text": "x"},\n {"text": }\n]', "invalid_json", 3, "line 3 column 11"),
        ("b.json", '[{"text": "x"}', "invalid_json", 1, "invalid JSON"),
        ("c.json", "[" * 100_000, "invalid_json", 1, "invalid JSON"),
        ("d.json", '{\n "data": [{"text": "x"}]\n}', "not_rows", None, "one object.*'data'"),
        ("a.csv", 'query,response\nq,"open\n', "invalid_csv", 2, "invalid csv"),
        ("b.csv", "query,query\nq,a\n", "invalid_csv", 1, "repeated"),
        ("c.csv", "query,response\nq,a\0\n", "invalid_csv", 2, "NUL"),
        ("a.parquet", "PAR1 nonsense", "invalid_parquet", None, "invalid parquet"),
        ("a.doc", "hello", "unknown_file_type", None, r"\.jsonl"),
    ],
)
def test_invalid_files(
    tmp_path: Path, name: str, content: str, rule: str, line: int | None, match: str
) -> None:
    (tmp_path / name).write_text(content)
    error = file_fault(tmp_path / name, rule, match)
    assert error.place is not None
    assert error.place.line == line


def test_invalid_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    error = file_fault(path, "invalid_encoding", "UTF-8")
    assert error.place is not None
    assert error.place.line == 2


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)

    def refuse(self: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    file_fault(path, "unreadable_file", "Permission denied")


def test_mixed_formats_name_both_places(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    path = write(tmp_path / "a.jsonl", [*ROWS[:2], chat])
    error = file_fault(path, "mixed_formats", r"messages.*a\.jsonl:1.*alpaca")
    assert error.place is not None
    assert error.place.line == 3
    plain = write(tmp_path / "b.jsonl", [{"query": "q", "response": "a"}, {"response": "a"}])
    file_fault(plain, "mixed_formats", "response")


def test_no_row_is_usable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"instruction": "q"}, {"instruction": "q", "output": ""}])
    error = file_fault(path, "no_good_rows", r"none of its 2 rows.*2 × missing_answer.*a\.jsonl:1")
    assert error.exit_code == 1
    file_fault(write(tmp_path / "b.json", ["x", "y"]), "wrong_type", "but is a text")
    file_fault(write(tmp_path / "c.json", [{"a": 1}]), "unknown_format", "alpaca")


BROKEN = [
    *ROWS[:3],
    {"instruction": "q"},
    ["list"],
    *ROWS[3:5],
    *[{"instruction": "q", "output": 1}] * 4,
]


def test_bad_rows_are_dropped_counted_and_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", BROKEN)
    rows = load(str(path))
    (report,) = rows.report.sources
    assert (report.read, report.good, len(rows)) == (11, 5, 5)
    assert report.dropped == {"missing_answer": 1, "wrong_type": 5}
    text = str(rows.report)
    assert f"{path}:4" in text
    assert f"{path}:5" in text
    assert f"{path}:9" in text
    assert f"{path}:10" not in text
    assert "and 2 more" in text
    each = str(load(str(path), check="warning").report)
    assert f"{path}:11" in each
    assert load(str(path), check="discard").report == load(str(path), check="warning").report
    with pytest.raises(DataError, match=r"a\.jsonl:4: field 'output'"):
        load(str(path), check="error")


def test_wrong_number_of_csv_cells_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,response\nq,a\nq\nq,a,b\n")
    rows = load(str(path))
    assert len(rows) == 1
    assert rows.report.sources[0].dropped == {"wrong_cells": 2}


def test_a_pair_without_rejected_answer_is_a_bad_row(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", [pair, {"prompt": "q", "completion": "a"}, pair])
    assert load(str(path)).report.sources[0].dropped == {"missing_columns": 1}


def test_sampling_is_seeded_and_per_source(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    other = write(tmp_path / "b.jsonl", ROWS)
    four = answers(load(f"{path}#4", seed=1))
    assert len(set(four)) == 4
    assert answers(load(f"{path}#4", seed=1)) == four
    assert answers(load([str(other), f"{path}#4"], seed=1))[10:] == four
    assert any(answers(load(f"{path}#4", seed=seed)) != four for seed in range(2, 6))
    many = answers(load(f"{path}#25"))
    counts = sorted(many.count(answer) for answer in set(many))
    assert counts == [2] * 5 + [3] * 5
    assert load(f"{path}#25").report.sources[0].used == 25


def test_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    both = load_split([str(path)], ratio=0.3)
    assert (len(both.train), len(both.val)) == (7, 3)
    assert sorted(answers(both.train) + answers(both.val)) == answers(load(str(path)))
    assert len(load_split([str(path)]).val) == 1
    assert len(load_split([str(path)], ratio=0).val) == 0
    assert len(load_split([str(path)], ratio=1).train) == 0
    one = write(tmp_path / "one.jsonl", ROWS[:1])
    assert (len(load_split([str(one)]).train), len(load_split([str(one)]).val)) == (1, 0)
    given = load_split([str(path)], [str(one)], ratio=0.5)
    assert (len(given.train), len(given.val)) == (10, 1)
    assert [report.source for report in given.report.sources] == [str(path), str(one)]


def test_repeated_rows_never_reach_both_sides_of_a_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    both = load_split([f"{path}#40"], ratio=0.2)
    assert (len(both.train), len(both.val)) == (38, 2)
    assert not set(answers(both.train)) & set(answers(both.val))


def test_unknown_dataset() -> None:
    with pytest.raises(UsageError, match=r"Did you mean alpaca-en"):
        load("alpaca-enn")
    with pytest.raises(UsageError, match="no subsets"):
        load(f"{__file__}:x", seed=1)


def test_registered_local_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"q": "question", "a": "answer", "tag": 1}])
    DATASETS.register(
        "test-local", DatasetInfo(path=str(path), columns={"q": "query", "a": "response"})
    )
    rows = load("test-local#2")
    assert answers(rows) == ["answer", "answer"]
    assert rows.report.sources[0].source == "test-local#2"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("alpaca_en_demo.json", "alpaca", 999),
        ("c4_demo.jsonl", "text", 300),
        ("dpo_en_demo.json", "preference", 300),
        ("glaive_toolcall_en_demo.json", "conversations", 300),
        ("identity.json", "alpaca", 91),
        ("kto_en_demo.json", "labelled", 300),
    ],
)
def test_every_row_of_the_real_files_loads(name: str, shape: str, count: int) -> None:
    rows = load(str(REAL / name), check="error")
    assert (len(rows), rows.report.sources[0].format) == (count, shape)
    for row in rows:
        assert type(row).from_json(json.loads(json.dumps(row.to_json())), row.source) == row


def test_several_sources_as_words_or_lists(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(json.dumps({"query": name, "response": "x"}) + "\n", encoding="utf-8")
        files.append(str(file))
    rows = load(*files)
    assert [row.messages[0].text for row in rows] == ["a", "b"]
    assert (
        list(rows.dicts()) == list(load(files).dicts()) == list(load([files[0]], files[1]).dicts())
    )
    assert next(rows.dicts())["messages"][0] == {"role": "user", "content": "a"}
