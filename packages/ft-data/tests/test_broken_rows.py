"""For each shape of row, every column broken in every way: what is refused, by which rule and where, and what isn't."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ft_core import Example
from ft_core.errors import DataError
from ft_core.examples import Source
from ft_data import RowFault
from ft_data.reading import RowReader
from ft_data.recognition import recognise

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
WORSE = {"role": "assistant", "content": "b"}

GOOD: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "input": "i", "output": "a"},
    "query": {"query": "q", "response": "a", "history": [["x", "y"]], "system": "s"},
    "messages": {"messages": [ASK, SAY]},
    "conversations": {
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    },
    "sharegpt": {"conversation": [{"human": "q", "assistant": "a"}]},
    "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "conversation pairs": {"chosen": [ASK, SAY], "rejected": [ASK, WORSE]},
    "rejected response": {"query": "q", "response": "a", "rejected_response": "b"},
    "labelled": {"prompt": "q", "completion": "a", "label": True},
    "text": {"text": "words"},
    "ids": {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
}

FAULTS: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "number": 5,
    "empty": "",
    "list": [],
    "object": {},
}

ALLOWED = {
    **dict.fromkeys(
        [("alpaca", "instruction", fault) for fault in ("null", "empty")]
    ),  # input asks
    **dict.fromkeys([("alpaca", "input", fault) for fault in ("missing", "null", "empty")]),
    **dict.fromkeys([("query", "history", f) for f in ("missing", "null", "empty", "list")]),
    **dict.fromkeys([("query", "system", fault) for fault in ("missing", "null", "empty")]),
}
"""Columns that a row can do without."""

RULES = {
    *("missing_columns", "missing_question", "missing_answer", "missing_role", "wrong_type"),
    *("empty_row", "empty_text", "wrong_length", "mixed_formats"),
}


def read(good: dict[str, Any], row: dict[str, Any]) -> Example | RowFault:
    """Read a row of a source whose other rows are good."""
    shape, _ = recognise(iter([(good, Source("rows.jsonl", 1))]))
    return RowReader(shape, require_answer=True).read(row, Source("rows.jsonl", 4))


def broken(good: dict[str, Any], column: str, fault: str) -> dict[str, Any]:
    row = {name: value for name, value in good.items() if name != column}
    return row if fault == "missing" else {**row, column: FAULTS[fault]}


CASES = [
    pytest.param(name, column, fault, id=f"{name}-{column}-{fault}")
    for name, good in GOOD.items()
    for column in good
    for fault in FAULTS
]


@pytest.mark.parametrize(("name", "column", "fault"), CASES)
def test_a_broken_column_is_refused_at_its_place(name: str, column: str, fault: str) -> None:
    row = broken(GOOD[name], column, fault)
    try:
        found = read(GOOD[name], row)
    except DataError as error:
        found = RowFault.of(error)
    if (name, column, fault) in ALLOWED:
        assert isinstance(found, Example)
        return
    assert isinstance(found, RowFault)
    assert found.rule in RULES
    assert found.place is not None and (found.place.path, found.place.line) == ("rows.jsonl", 4)
    if fault in ("number", "object") and name != "labelled":
        assert column in found.detail


@pytest.mark.parametrize("name", GOOD)
def test_good_rows_are_read(name: str) -> None:
    found = read(GOOD[name], GOOD[name])
    assert isinstance(found, Example)
    found.validate()


@pytest.mark.parametrize(
    ("name", "column"),
    [
        (name, column)
        for name, good in GOOD.items()
        for column, value in good.items()
        if isinstance(value, list)
    ],
)
def test_lists_that_were_stored_as_text_are_read(name: str, column: str) -> None:
    row = {**GOOD[name], column: json.dumps(GOOD[name][column])}
    assert read(GOOD[name], row) == read(GOOD[name], GOOD[name])


@pytest.mark.parametrize("name", ["alpaca", "query", "preference", "labelled", "text"])
def test_huge_texts_are_kept_whole(name: str) -> None:
    column = list(GOOD[name])[-1 if name == "text" else 1]
    row = {**GOOD[name], column: "long " * 200_000}
    found = read(GOOD[name], row)
    assert isinstance(found, Example)
    assert row[column].strip() in (found.text or "".join(turn.text for turn in found.messages))


@pytest.mark.parametrize(
    ("turns", "rule"),
    [
        ([ASK], "missing_answer"),
        ([ASK, {"role": "system", "content": "s"}, SAY], "late_system"),
        ([SAY, ASK], None),
        ([ASK, ASK, SAY], None),
    ],
)
def test_turns_in_a_wrong_order(turns: list[dict[str, str]], rule: str | None) -> None:
    """What a chat format may take is kept as written; it decides when the row is encoded."""
    found = read(GOOD["messages"], {"messages": turns})
    if rule is None:
        assert isinstance(found, Example)
        assert [turn.role for turn in found.messages] == [turn["role"] for turn in turns]
    else:
        assert isinstance(found, RowFault) and found.rule == rule
