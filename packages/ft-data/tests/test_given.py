"""The data flags of commands: what they add up to, older ones included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ft_core.command import Command, Invocation
from ft_core.command.resolve import resolve
from ft_core.errors import UsageError
from ft_data import DataArguments, MixArguments, TrainVal, load, load_given


def flags(*words: object) -> tuple[DataArguments, MixArguments, list[str]]:
    """Read flags as a command does, and return what was said about them."""
    said: list[str] = []

    def run(_: Invocation) -> None: ...

    command = Command("t", "", (DataArguments, MixArguments), run)
    found = resolve(command, [str(word) for word in words], environ={}, warn=said.append)
    return found.get(DataArguments), found.get(MixArguments), said


def loaded(*words: object, **options: Any) -> TrainVal:
    data, mixing, _ = flags(*words)
    return load_given(data, seed=1, mixing=mixing, **options)


def write(path: Path, count: int, letter: str = "a") -> Path:
    rows = [{"query": f"q{n}", "response": f"{letter}{n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(rows: Sequence[Any]) -> list[str]:
    return [row.answer for row in rows]


def test_plain_flags(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 100), write(tmp_path / "b.jsonl", 10, "b")
    both = loaded("--dataset", a)
    assert (len(both.train), len(both.val)) == (99, 1)
    both = loaded("--dataset", f"{a}#50,{b}", "--dataset_test_ratio", 0.1)
    assert (len(both.train), len(both.val)) == (45 + 9, 5 + 1)
    both = loaded("--dataset", a, "--val_dataset", f"{b}#4", "--dataset_test_ratio", 0.5)
    assert (len(both.train), len(both.val)) == (100, 4)
    assert all(answer.startswith("b") for answer in answers(both.val))


def test_dataset_seed_goes_before_seed(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", 100)
    ten = ("--dataset", f"{a}#10", "--dataset_test_ratio", 0)
    assert answers(loaded(*ten, "--dataset_seed", 7).train) == answers(load(f"{a}#10", seed=7))
    assert answers(loaded(*ten).train) == answers(load(f"{a}#10", seed=1))
    assert answers(loaded(*ten).train) != answers(loaded(*ten, "--dataset_seed", 7).train)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 35])
def test_rows_are_repeated_whole_and_the_rest_is_random(tmp_path: Path, count: int) -> None:
    a = write(tmp_path / "a.jsonl", 10)
    for seed in range(5):
        taken = answers(load(f"{a}#{count}", seed=seed))
        counts = {answer: taken.count(answer) for answer in taken}
        assert len(taken) == count
        assert set(counts.values()) <= {count // 10, count // 10 + 1}
        if count >= 10:
            assert len(counts) == 10


def test_older_names_of_files(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 10, "b")
    words = ("--custom_train_dataset_path", a, "--custom_val_dataset_path", b)
    both = loaded(*words)
    assert (answers(both.train)[0], answers(both.val)[0]) == ("a0", "b0")
    assert (len(both.train), len(both.val)) == (10, 10)
    _, _, said = flags(*words)
    assert said == [
        "--custom_train_dataset_path is deprecated: give the files to --dataset",
        "--custom_val_dataset_path is deprecated: give the files to --val_dataset",
    ]
    both = loaded("--dataset", b, "--custom_train_dataset_path", a, "--dataset_test_ratio", 0)
    assert len(both.train) == 20


def test_older_samples(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 100), write(tmp_path / "b.jsonl", 100, "b")
    sources = ("--dataset", a, b, "--dataset_test_ratio", 0.1)
    both = loaded(*sources, "--train_dataset_sample", 50)
    assert (len(both.train), len(both.val)) == (50, 5)
    assert len(set(answers(both.train))) == 50
    assert "--train_dataset_sample takes 50 of 180 rows" in str(both.report)
    both = loaded(*sources, "--val_dataset_sample", 3)
    assert (len(both.train), len(both.val)) == (180, 3)
    both = loaded(*sources, "--train_dataset_sample", 50, "--val_dataset_sample", -1)
    assert (len(both.train), len(both.val)) == (50, 20)
    both = loaded(*sources, "--train_dataset_sample", -1)
    assert (len(both.train), len(both.val)) == (180, 20)
    both = loaded(*sources, "--train_dataset_sample", 1000, "--val_dataset_sample", 1000)
    assert (len(both.train), len(both.val)) == (180, 20)
    # A sample to train on says nothing about rows to evaluate on that are named.
    both = loaded("--dataset", a, "--val_dataset", b, "--train_dataset_sample", 50)
    assert (len(both.train), len(both.val)) == (50, 100)
    seeded = [answers(loaded(*sources, "--train_dataset_sample", 50).train) for _ in range(2)]
    assert seeded[0] == seeded[1]


def test_mixing(tmp_path: Path) -> None:
    a, general = write(tmp_path / "a.jsonl", 100), write(tmp_path / "g.jsonl", 30, "g")
    words = ("--dataset", a, "--dataset_test_ratio", 0, "--train_dataset_mix_ds", general)
    for ratio, count in ((0.1, 10), (0.5, 50), (0.0001, 1)):
        both = loaded(*words, "--train_dataset_mix_ratio", ratio)
        mixed = [answer for answer in answers(both.train) if answer.startswith("g")]
        assert len(mixed) == count
        assert len(set(mixed)) == min(count, 30)
        assert len(both.train) == 100 + count
        assert f"{count:,} of these are mixed into 100 rows" in str(both.report)
    assert len(loaded(*words).train) == 100
    assert flags()[1].train_dataset_mix_ds == ["ms-bench"]
    _, _, said = flags(*words, "--train_dataset_mix_ratio", 1)
    assert all("--dataset YOURS GENERAL#N" in line for line in said)
    assert len(said) == 2


def test_self_cognition_sample(tmp_path: Path) -> None:
    names = ("--model_name", "小雀", "Finch", "--model_author", "ft")
    both = loaded("--self_cognition_sample", 20, *names, "--dataset_test_ratio", 0)
    assert len(both.train) == 20
    assert any("Finch" in (row.answer or "") for row in both.train)
    direct = loaded("--dataset", "self-cognition#20", *names, "--dataset_test_ratio", 0)
    assert answers(direct.train) == answers(both.train)
    for missing in ((), ("--model_name", "Finch")):
        with pytest.raises(UsageError, match="--self_cognition_sample 20 needs --model_"):
            flags("--self_cognition_sample", 20, *missing)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--model_name", "a", "b", "c"), "--model_name takes one value, or two"),
        (("--train_dataset_sample", 0), "leaves nothing to train on"),
        (("--train_dataset_sample", -2), "at least -1"),
        (("--val_dataset_sample", -2), "at least -1"),
        (("--self_cognition_sample", -1), "at least 0"),
        (("--train_dataset_mix_ratio", -0.5), "at least 0"),
        (("--dataset_test_ratio", 2), "at most 1"),
    ],
)
def test_bad_values(words: tuple[object, ...], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        flags(*words)


def test_custom_dataset_info(register: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 3)
    info = {"mine": {"dataset_path": "a.jsonl"}}
    file = tmp_path / "info.json"
    file.write_text(json.dumps(info))
    data, _, _ = flags("--custom_dataset_info", file)
    assert data.custom_dataset_info == str(file), "the path is kept: paths in it are relative to it"
    both = loaded("--dataset", "mine", "--custom_dataset_info", file, "--dataset_test_ratio", 0)
    assert answers(both.train) == ["a0", "a1", "a2"]
    absolute = json.dumps({"mine": {"dataset_path": str(tmp_path / "a.jsonl")}})
    data, _, _ = flags("--custom_dataset_info", absolute)
    assert isinstance(data.custom_dataset_info, dict)
    both = loaded("--dataset", "mine", "--custom_dataset_info", absolute)
    assert len(both.train) == 2
    with pytest.raises(UsageError, match="no such file"):
        loaded("--dataset", "mine", "--custom_dataset_info", tmp_path / "none.json")
