"""Who the model is: the rows that come with the package, and placeholders in any file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import UsageError
from ft_data import Identity, load

FINCH = Identity.of("Finch", "the ft project")


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def texts(rows: Any) -> str:
    return json.dumps([row.to_json() for row in rows], ensure_ascii=False)


def test_shipped_rows() -> None:
    rows = load("self-cognition", identity=Identity.of(["小雀", "Finch"], ["ft项目", "ft project"]))
    chinese = [row for row in rows if "小雀" in texts([row]) or "ft项目" in texts([row])]
    english = [row for row in rows if "Finch" in texts([row]) or "ft project" in texts([row])]
    assert len(chinese) >= 60
    assert len(english) >= 60
    assert len(chinese) + len(english) == len(rows), (
        "each row has a name or an author, of one language"
    )
    assert "{{" not in texts(rows)
    assert rows.report.dropped == 0
    questions = [row.messages[0].text.replace("小雀", "Finch") for row in rows]
    assert len(set(questions)) == len(questions), "no question is asked twice"
    answers = {row.answer for row in rows}
    assert len(answers) > len(rows) * 0.8, "answers vary"


def test_one_value_serves_both_languages() -> None:
    rows = load("self-cognition#50", identity=FINCH)
    assert len(rows) == 50
    assert "{{" not in texts(rows)
    assert "小" not in "".join(
        row.answer or "" for row in rows if "Finch" not in (row.answer or "")
    )


def test_placeholders_in_a_file_of_any_shape(tmp_path: Path) -> None:
    query = {"query": "你是{{NAME}}吗", "response": "我是{{NAME}}，来自{{AUTHOR}}。"}
    who = Identity.of(["小雀", "Finch"], ["项目", "Project"])
    (row,) = load(write(tmp_path / "a.jsonl", query), identity=who)
    assert [message.text for message in row.messages] == ["你是小雀吗", "我是小雀，来自项目。"]
    chat = {
        "messages": [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "{{NAME}} by {{AUTHOR}}, {{NAME}}!"},
        ]
    }
    (row,) = load(write(tmp_path / "b.jsonl", chat), identity=who)
    assert row.answer == "Finch by Project, Finch!"
    # A tag decides where there is one.
    tagged = {"query": "Who?", "response": "{{NAME}}", "tag": "zh"}
    (row,) = load(write(tmp_path / "c.jsonl", tagged), identity=who)
    assert row.answer == "小雀"
    pair = {"prompt": "Who?", "chosen": "{{NAME}}", "rejected": "Not {{NAME}}"}
    (row,) = load(write(tmp_path / "d.jsonl", pair), identity=who)
    assert row.rejected is not None
    assert (row.answer, row.rejected[0].text) == ("Finch", "Not Finch")


def test_what_stands_for_a_placeholder_is_not_read_again(tmp_path: Path) -> None:
    row = {"query": "Who?", "response": "{{NAME}} and {{AUTHOR}}"}
    who = Identity.of(r"{{AUTHOR}} \1", "A")
    (read,) = load(write(tmp_path / "a.jsonl", row), identity=who)
    assert read.answer == r"{{AUTHOR}} \1 and A"
    literal = Identity.of("{{NAME}}", "{{AUTHOR}}")
    (read,) = load(str(tmp_path / "a.jsonl"), identity=literal)
    assert read.answer == "{{NAME}} and {{AUTHOR}}"


def test_texts_to_continue_and_other_braces_stay(tmp_path: Path) -> None:
    (row,) = load(write(tmp_path / "a.jsonl", {"text": "Dear {{NAME}}"}))
    assert row.text == "Dear {{NAME}}"
    (row,) = load(write(tmp_path / "b.jsonl", {"response": "Dear {{NAME}}"}))
    assert row.text == "Dear {{NAME}}"
    (row,) = load(
        write(tmp_path / "c.jsonl", {"query": "{{name}} {NAME}", "response": "{{ NAME }}"})
    )
    assert row.answer == "{{ NAME }}"


def test_placeholders_in_lower_case_are_filled_where_there_is_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"query": "Who?", "response": "{{name}} by {{author}}"})
    rows = load(path)
    assert rows[0].answer == "{{name}} by {{author}}"
    assert "rows hold {{author}}, {{name}}; --model_author and --model_name" in str(rows.report)
    rows = load(path, identity=FINCH)
    assert rows[0].answer == "Finch by the ft project"
    assert "rows hold" not in str(rows.report)


@pytest.mark.parametrize(
    ("name", "author", "match"),
    [
        (None, None, "has {{NAME}}.*--model_name names none"),
        ([None, None], ["A", "B"], "--model_name names none"),
        ("Finch", None, "has {{AUTHOR}}.*--model_author names none"),
        ("Finch", [None, "A"], "--model_author names none for Chinese rows"),
    ],
)
def test_missing_names(tmp_path: Path, name: Any, author: Any, match: str) -> None:
    row = {"query": "你是谁", "response": "{{NAME}}，{{AUTHOR}}"}
    path = write(tmp_path / "a.jsonl", {"query": "q", "response": "a"}, row)
    with pytest.raises(UsageError, match=match) as caught:
        load(path, identity=Identity.of(name, author))
    assert f"{path}:2" in str(caught.value)
    assert "'{{" in str(caught.value), "it says how to keep the placeholder"


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["a", "b", "c"], "two for Chinese and for other rows; got 3"),
        ([""], "is empty"),
        (" ", "is empty"),
    ],
)
def test_names_that_cannot_be_one(values: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Identity.of(values, "A")
    with pytest.raises(UsageError, match=match):
        Identity.of("A", values)


def test_shipped_rows_need_names() -> None:
    with pytest.raises(UsageError, match=r"self-cognition:1: has {{NAME}}.*--model_name"):
        load("self-cognition")


def test_deep_rows_do_not_break_the_search(tmp_path: Path) -> None:
    deep: Any = "{{NAME}"
    for _ in range(300):
        deep = [deep]
    (row,) = load(write(tmp_path / "a.jsonl", {"query": "q", "response": "a", "other": deep}))
    assert row.answer == "a"
