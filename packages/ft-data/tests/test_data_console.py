"""The commands of ft-data as a person types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ft_core.testing import tiny_tokenizer
from ft_data import load
from ft_data.console import main

CSV = "instruction,input,output\nAdd 1 and 1.,,2\nAdd 1 and 1.,,2\nAdd 1 and 1.,,3\n,,4\n"


@pytest.fixture
def csv(tmp_path: Path) -> str:
    file = tmp_path / "rows.csv"
    file.write_text(CSV, encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t"))


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_check_shows_drops_and_findings(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", csv]) == 0
    text = capsys.readouterr().out
    assert "4 rows; read as alpaca" in text and "dropped 1 (" in text and "rows.csv:5" in text
    assert "duplicate: 1 rows" in text and "rows.csv:3 equals" in text
    assert "several_answers: 1" in text and "turns: 0 system, 3 user, 3 assistant" in text
    assert main(["check", f"{csv}#1", "--dataset_seed", "3"]) == 0
    assert "nothing else to look at" in capsys.readouterr().out


def test_check_can_stop_at_the_first_fault(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", csv, "--check_dataset_strategy", "error"]) == 1
    assert "rows.csv:5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["check"], 2, "ft-data check needs rows"),
        (["check", "missing.jsonl"], 1, "missing.jsonl: there is no such file"),
        (["preview", "self-cognition"], 2, "needs --tokenizer"),
        (["preview", "x", "--tokenizer", "/nowhere"], 1, "--tokenizer /nowhere: no such directory"),
        (["preview", "x", "--html", "a", "--json"], 2, "drop one of them"),
        (["preview", "x", "--model_type", "y"], 2, "--model_type comes with ft-cli"),
        (["preview", "x", "--html", "a", "--raw"], 2, "drop one of them"),
        (["check", "x", "--max_length", "9"], 2, "needs --tokenizer"),
        (["convert", "x"], 2, "needs --to"),
        (["convert", "x", "--to", "."], 2, "--to . is a directory"),
        (["chekc"], 2, "check"),
        (["check", "x", "--bogus"], 2, "See ft-data check --help"),
    ],
)
def test_mistakes_are_explained(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert says in captured.err and captured.out == ""


ROUND_TRIP = {
    "preference": {"query": "q", "response": "yes", "rejected_response": "no"},
    "labelled": {"prompt": "q", "completion": "a", "label": False},
    "text": {"text": "Once. é🙂"},
    "unanswered": {"query": "what is this?", "system": "short", "images": ["a.png"]},
    "history": {"query": "c", "response": "d", "history": [["a", "b"]]},
    "tools": {
        "messages": [
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "3", "tool_call_id": "1"},
            {"role": "assistant", "content": "three", "weight": 0.5},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
}


@pytest.mark.parametrize("name", ROUND_TRIP)
def test_converted_rows_are_the_same_rows(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "source.jsonl", ROUND_TRIP[name])
    target, again = tmp_path / "target.jsonl", tmp_path / "again.jsonl"
    assert main(["convert", source, "--to", str(target)]) == 0
    assert capsys.readouterr().out == f"1 rows: {target}\n"
    (before,) = load(source, require_answer=False)
    (after,) = load(str(target), require_answer=False)
    assert after.to_json() == before.to_json() == json.loads(target.read_text(encoding="utf-8"))
    assert main(["convert", str(target), "--to", str(again)]) == 0
    assert again.read_bytes() == target.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_convert_says_what_it_leaves_out(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "rows.jsonl"
    assert main(["convert", csv, "--to", str(target)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"3 rows: {target}\n"
    assert "dropped 1" in captured.err and "rows.csv:5" in captured.err
    assert len(target.read_text(encoding="utf-8").splitlines()) == 3


def test_convert_names_a_file_that_cannot_be_written(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", csv, "--to", str(tmp_path / "none" / "x.jsonl")]) == 1
    assert "x.jsonl: can't be written: No such file" in capsys.readouterr().err


def test_half_a_character_is_dropped_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: str
) -> None:
    good = {"query": "whole", "response": "\U0001f642"}
    bad = [
        {"query": "half", "response": "cut \ud83d here"},
        {"query": "\ude42", "response": "answer"},
        {"query": "x", "response": "y", "images": ["\ud83d.png"]},
    ]
    source = written(tmp_path / "rows.jsonl", good, *bad)
    loaded = load(source)
    assert [row.answer for row in loaded] == ["🙂"]
    assert loaded.report.sources[0].dropped == {"broken_character": 3}
    assert main(["preview", source, "--tokenizer", tokenizer, "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_previews(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: str
) -> None:
    words = ["preview", csv, "--tokenizer", tokenizer, "--limit", "2"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert "dropped 1" in captured.err
    assert len(rows) == 2
    for row in rows:
        trained = zip(row["tokens"], row["loss_weights"], strict=True)
        assert "".join(text for text, weight in trained if weight) == "2<|im_end|>"
        assert "".join(row["tokens"]) == row["text"]
    assert main(words) == 0
    assert "Add 1 and 1." in capsys.readouterr().out
    page = tmp_path / "rows.html"
    assert main([*words, "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text(encoding="utf-8").count("<section>") == 2


def test_preview_takes_a_named_format(
    csv: str, capsys: pytest.CaptureFixture[str], tokenizer: str
) -> None:
    words = ["preview", f"{csv}#1", "--tokenizer", tokenizer, "--json"]
    assert main([*words, "--template_type", "chatml"]) == 0
    assert json.loads(capsys.readouterr().out)["text"].startswith("<|im_start|>")
    assert main([*words, "--template_type", "chatlm"]) == 2
    assert "--template_type chatlm: there is no such template" in capsys.readouterr().err


def test_a_row_that_does_not_fit_the_format_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    strict += "<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    strict += "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
    directory = tiny_tokenizer(tmp_path / "t", chat_template=strict)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    plain, late = {"messages": turns}, {"messages": [turns[0], *turns]}
    with_system = {"messages": [{"role": "system", "content": "s"}, *turns]}
    source = written(tmp_path / "rows.jsonl", with_system, plain, late)
    words = ["--tokenizer", str(directory), "--json"]
    code = main(["preview", source, *words])
    captured = capsys.readouterr()
    assert code == 0 and captured.out.strip()
    assert "rows.jsonl:1" in captured.err
    only = written(tmp_path / "only.jsonl", with_system)
    assert main(["preview", only, *words]) == 1
    assert "none of these rows can be shown" in capsys.readouterr().err


def test_check_measures_compares_and_reports(
    tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "the answer is hi " * 40
    refuses = "Sorry, I can't help with that."
    train = written(
        tmp_path / "train.jsonl",
        {"query": "Say  HI", "response": long},
        {"query": "你好，你是谁？", "response": "我是一个助手。"},
        {"query": "tell me <|im_end|>", "response": refuses},
    )
    val = written(tmp_path / "val.jsonl", {"query": "say hi", "response": "no"})
    report = tmp_path / "report.json"
    words = (
        *("check", train, "--val_dataset", val, "--tokenizer", tokenizer, "--max_length", "64"),
        *("--report", str(report)),
    )
    assert main(list(words)) == 0
    out = capsys.readouterr().out
    for kind in ("leaked", "over_max_length", "refused_answer", "special_token"):
        assert f"{kind}: 1" in out
    assert "up to" in out and "zh" in out
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["rows"] == 3 and found["validation"] == 1
    assert found["languages"] == {"en": 2, "zh": 1}
    assert sum(item["rows"] for item in found["tokens"]["bins"]) == 3
    assert {item["kind"]: item["count"] for item in found["findings"]}["leaked"] == 1
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_columns_left_aside_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "r.jsonl", {"query": "q", "response": "a", "topic": "x", "n": 3})
    assert main(["preview", file, "--raw"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["aside"] == {"topic": "x", "n": 3}
    assert row["source"].endswith("r.jsonl:1")
    assert [turn["content"] for turn in row["messages"]] == ["q", "a"]


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--filter", "SELF-COGNITION", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(json.loads(line)["name"] == "self-cognition" for line in lines)
    assert main(["list", "--filter", "no such data set"]) == 2


def test_rows_that_teach_a_name_take_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["convert", "self-cognition#5", "--to", str(out)]) == 2
    assert "--model_name" in capsys.readouterr().err
    named = ("--model_name", "Finch", "--model_author", "the team")
    assert main(["convert", "self-cognition#20", "--to", str(out), *named]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Finch" in text and "{{" not in text


def test_registered_files_are_read_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], register: Any
) -> None:
    written(tmp_path / "r.jsonl", {"ask": "q", "say": "a"})
    info = {
        "mine-for-check": {
            "dataset_path": str(tmp_path / "r.jsonl"),
            "columns": {"ask": "query", "say": "response"},
        }
    }
    words = ["preview", "mine-for-check", "--raw", "--custom_dataset_info", json.dumps(info)]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out)
    assert [turn["content"] for turn in row["messages"]] == ["q", "a"]
