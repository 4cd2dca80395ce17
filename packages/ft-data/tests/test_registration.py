"""Registering data sets: in Python, by entry point, and in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import DataError, UsageError
from ft_core.registry import Registry, run_register_file
from ft_data import DATASETS, BadRowError, Conversations, DatasetInfo, load, register_dataset_info
from ft_data import registry as registry_module


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def answers(rows: Any) -> list[str | None]:
    return [row.answer for row in rows]


def test_renamed_columns(register: Any, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", {"q": "question", "a": "answer", "query": "old", "text": "t"}
    )
    register("mine", path=path, columns={"q": "query", "a": "response"})
    (row,) = load("mine")
    assert [message.text for message in row.messages] == ["question", "answer"]


def test_columns_that_are_dropped_or_would_compete(register: Any, tmp_path: Path) -> None:
    row = {"question": "q", "chosen": "a", "rejected": "b", "instruction": "x", "history": [["1"]]}
    path = write(tmp_path / "a.jsonl", row)
    names = {"question": "query", "chosen": "response", "rejected": "rejected_response"}
    register("mine", path=path, columns={**names, "history": "-"})
    (read,) = load("mine")
    assert read.answer == "a"
    assert read.rejected is not None
    assert read.rejected[0].text == "b"
    assert read.messages[0].text == "q"


def test_conversations(register: Any, tmp_path: Path) -> None:
    turns = [
        {"who": "Kunde", "says": "Hallo"},
        {"who": "Hilfe", "says": "Guten Tag", "weight": 0.5},
    ]
    path = write(tmp_path / "a.jsonl", {"chat": turns, "prompt": "no", "system": "Kurz."})
    keys = Conversations(
        user_role="Kunde",
        assistant_role="Hilfe",
        conversations_key="chat",
        from_key="who",
        value_key="says",
    )
    register("mine", path=path, conversations=keys)
    (row,) = load("mine")
    assert [(turn.role, turn.text) for turn in row.messages] == [
        ("system", "Kurz."),
        ("user", "Hallo"),
        ("assistant", "Guten Tag"),
    ]
    assert row.messages[2].weight == 0.5


def test_functions(register: Any, tmp_path: Path) -> None:
    def convert(row: Any) -> Any:
        if row["kind"] == "skip":
            return None
        if row["kind"] == "bad":
            raise BadRowError("is of no use", "kind", "my_rule")
        if row["kind"] == "several":
            return [{"query": "q", "response": answer} for answer in row["answers"]]
        return {"query": "q", "response": row["answer"]}

    path = write(
        tmp_path / "a.jsonl",
        {"kind": "one", "answer": "1"},
        {"kind": "several", "answers": ["2", "3"]},
        {"kind": "skip"},
        {"kind": "bad"},
        {"kind": "one"},
        {"no": "kind"},
    )
    register("mine", path=path, convert=convert)
    rows = load("mine")
    assert answers(rows) == ["1", "2", "3"]
    (report,) = rows.report.sources
    assert report.dropped == {"my_rule": 1, "not_converted": 2}
    assert report.read == len(rows) + len(report.faults)
    assert f"{path}:4: field 'kind': is of no use" in str(report.faults[0].detail)
    assert "KeyError: 'answer'" in report.faults[1].detail
    with pytest.raises(DataError, match="is of no use"):
        load("mine", check="error")


def test_names_that_cannot_be_one(register: Any) -> None:
    for name in ("", "a,b", "a:b", "a#3", "HF::a"):
        with pytest.raises(UsageError, match="name must not be empty or hold"):
            register(name, path="x.jsonl")
    with pytest.raises(UsageError, match="give huggingface_id, modelscope_id or path"):
        register("mine")
    with pytest.raises(UsageError, match="registered already"):
        register("alpaca-en", path="x.jsonl")
    register("alpaca-en", path="x.jsonl", exist_ok=True)


def test_a_file_given_by_custom_register_path(register: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"frage": "q", "antwort": "a"})
    file = tmp_path / "happy.py"
    file.write_text(
        "from ft_data import register_dataset\n"
        f"register_dataset('mine', path={path!r}, columns={{'frage': 'query', 'antwort': 'response'}})\n"
    )
    run_register_file(file)
    assert answers(load("mine")) == ["a"]


PLUGIN = DatasetInfo(modelscope_id="plug/in", tags=("x",))


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "from-a-package", f"{__name__}:PLUGIN"

    def entry_points(group: str) -> Iterator[Any]:
        return iter([Point()] if group == "ft.datasets" else [])

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    fresh: Registry[DatasetInfo] = Registry(
        "dataset", entry_point_group="ft.datasets", load=registry_module._fill
    )
    assert "from-a-package" in fresh
    assert "alpaca-en" in fresh
    assert fresh.get("from-a-package") == PLUGIN


def test_former_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = Path(
        write(
            tmp_path / "rows.jsonl",
            {
                "conversations": [
                    {"from": "user", "value": "q"},
                    {"from": "assistant", "value": "a"},
                ]
            },
        )
    )
    asked: list[Any] = []

    def fetch(identity: str, *, hub: str, subset: str | None, splits: tuple[str, ...]) -> Any:
        asked.append((identity, subset))
        return {splits[0]: (file,)}

    monkeypatch.setattr("ft_data.hub.fetch_dataset", fetch)
    rows = load("MS::ms-bench-mini#3")
    assert len(rows) == 3
    assert "MS::ms-bench-mini#3 is a former name; use MS::ms-bench#3" in str(rows.report)
    assert len(load("ms-bench-mini")) == 20_000
    load("sharegpt-zh#1")
    assert [subset for name, subset in asked if name == "swift/sharegpt"] == [
        "common-zh",
        "computer-zh",
        "unknow-zh",
    ]
    for name, now in registry_module.former_names().items():
        assert name not in DATASETS
        assert now.partition("#")[0].partition(":")[0] in DATASETS


def test_json_file(register: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    (folder / "data").mkdir(parents=True)
    write(folder / "data" / "a.jsonl", {"q": "question", "a": "answer"})
    info = {
        "mine": {"dataset_path": "data/a.jsonl", "columns": {"q": "query", "a": "response"}},
        "on-hubs": {
            "dataset_id": "o/ms",
            "hf_dataset_id": "o/hf",
            "subsets": ["x", "y"],
            "split": ["train", "test"],
            "conversations": {"user_role": "human", "error_strategy": "delete"},
            "tags": ["t"],
            "huge_dataset": True,
            "remove_useless_columns": True,
        },
    }
    file = folder / "dataset_info.json"
    file.write_text(json.dumps(info), encoding="utf-8-sig")
    assert register_dataset_info(str(file)) == ["mine", "on-hubs"]
    assert answers(load("mine")) == ["answer"]
    found = registry_module.DATASETS.get("on-hubs")
    assert (found.modelscope_id, found.huggingface_id) == ("o/ms", "o/hf")
    assert (found.subsets, found.split, found.tags) == (("x", "y"), ("train", "test"), ("t",))
    assert found.huge
    assert found.conversations == Conversations(user_role="human", error_strategy="delete")
    assert found.expects_bad_rows


def test_json_text_and_object(
    register: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", {"query": "q", "response": "a"})
    info = {"one": {"dataset_path": "a.jsonl"}}
    assert register_dataset_info(json.dumps(info)) == ["one"]
    assert register_dataset_info({"two": {"dataset_path": "a.jsonl"}}) == ["two"]
    assert answers(load(["one", "two"])) == ["a", "a"]
    # It may be read twice, and takes the place of a data set of this name.
    register_dataset_info({"one": {"dataset_path": "a.jsonl"}, "alpaca-en": {"dataset_id": "o/x"}})
    assert registry_module.DATASETS.get("alpaca-en").huggingface_id is None


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("nowhere.json", "no such file"),
        ("{", "invalid JSON"),
        ("[]", "an object of names.*but is a list"),
        ("{}", "but is empty"),
        ({"a:b": {"dataset_id": "o/x"}}, "name must not"),
        ({"a": []}, "a: must be an object"),
        ({"a": {}}, "says nowhere where the rows are"),
        ({"a": {"data_path": "x"}}, "unknown key 'data_path'. Did you mean dataset_path"),
        ({"a": {"dataset_path": 3}}, "dataset_path must be a text, but is a number: 3"),
        ({"a": {"dataset_id": "o/x", "subsets": [1]}}, "subsets must be a list of texts"),
        ({"a": {"dataset_id": "o/x", "split": {}}}, "split must be a list of texts"),
        (
            {"a": {"dataset_id": "o/x", "columns": {"a": 1}}},
            "columns must be an object of old and new",
        ),
        (
            {"a": {"dataset_id": "o/x", "tags": "t", "huge_dataset": "yes"}},
            "huge_dataset must be true",
        ),
        ({"a": {"dataset_id": "o/x", "conversations": 1}}, "a: conversations: must be an object"),
        (
            {"a": {"dataset_id": "o/x", "conversations": {"user": "x"}}},
            "unknown key 'user'. Did you mean user_role",
        ),
        ({"a": {"dataset_id": "o/x", "conversations": {"from_key": 1}}}, "from_key must be a text"),
        (
            {"a": {"dataset_id": "o/x", "conversations": {"error_strategy": "drop"}}},
            "error_strategy 'drop' must be raise or delete",
        ),
        (
            {
                "a": {
                    "dataset_id": "o/x",
                    "conversations": {"media_type": "smell", "media_key": "x"},
                }
            },
            "media_type 'smell'",
        ),
        (
            {"a": {"dataset_id": "o/x", "conversations": {"media_type": "image"}}},
            "media_type and media_key go together",
        ),
    ],
)
def test_bad_json(register: Any, given: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        register_dataset_info(given)
    assert "--custom_dataset_info" in str(caught.value) or "name must not" in match


def test_bad_json_file(register: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UsageError, match="can't be read"):
        register_dataset_info(str(file))


@pytest.mark.parametrize(
    ("turns", "match"),
    [
        (None, "there is none"),
        (3, "it is a number"),
        ("not a list", "it is a text"),
        (["turn"], r"field 'conversations\[0\]': must be an object"),
        ([{"value": "x"}], "has no 'from'"),
        ([{"from": "narrator", "value": "x"}], "role 'narrator' is unknown"),
    ],
)
def test_broken_conversations(register: Any, tmp_path: Path, turns: Any, match: str) -> None:
    good = {"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]}
    path = write(tmp_path / "a.jsonl", good, {"conversations": turns})
    register("mine", path=path, conversations=Conversations())
    rows = load("mine")
    assert len(rows) == 1
    (fault,) = rows.report.sources[0].faults
    assert fault.place is not None
    assert fault.place.line == 2
    with pytest.raises(DataError, match=match):
        load("mine", check="error")
