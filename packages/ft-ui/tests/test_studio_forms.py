"""Forms made from argument groups: fields, searching, checks, the words they become, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml

from ft_core.command import ArgumentGroup, Command, flag
from ft_core.command.resolve import resolve
from ft_core.errors import UsageError
from ft_ui.studio.forms import FORBIDDEN, check_words, command_line, form_of, only_in_a_terminal
from ft_ui.studio.presets import PRESETS, first_of, presets_of
from ft_ui.studio.workplace import Workplace


class Learning(ArgumentGroup):
    """How it learns."""

    title: ClassVar[str] = "learning"

    dataset: list[str] = flag([], commas=True)
    """Rows to use."""

    lora_rank: int = flag(8, ge=1, aliases=("rank",))
    """Rank of the adapters."""

    packing: bool = False
    """Join rows into long ones."""

    sft_type: Literal["lora", "full"] = "lora"
    """What is trained."""

    learning_rate: float | None = None
    """Highest learning rate."""

    system: str | None = None
    """System message."""

    deepspeed: dict[str, str] | str | None = None
    """Settings."""

    custom_register_path: str | None = None
    """A .py file."""

    hub_token: str | None = flag(None, secret=True)
    """Token."""

    old: str | None = flag(None, deprecated="use new")
    """Of the old times."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse what contradicts itself."""
        if self.sft_type == "full" and "lora_rank" in given:
            raise UsageError("--lora_rank has no effect with --sft_type full; leave it out")


def nothing(invocation: Any) -> None:
    """Do nothing."""


COMMAND = Command("sft", "Learn.", (Learning,), nothing, defaults={"packing": True})
FORM = form_of(COMMAND)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    return Workplace(tmp_path.resolve())


def test_a_form_has_every_flag_a_page_may_set() -> None:
    assert set(FORM.fields) == {
        *("dataset", "lora_rank", "packing", "sft_type", "learning_rate", "system", "deepspeed")
    }
    assert FORM.fields["packing"].default_text == "true", "the command's own default counts"
    assert FORM.fields["sft_type"].choices == ["lora", "full"]
    kinds = {name: field.kind for name, field in FORM.fields.items()}
    assert kinds["packing"] == "switch" and kinds["system"] == "long"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        *(("rank", "lora_rank"), ("adapters", "lora_rank"), ("lora rank", "lora_rank")),
        *(("--learning_rate", "learning_rate"), ("join long", "packing")),
        ("LEARNING highest", "learning_rate"),
    ],
)
def test_flags_are_found_by_name_alias_and_meaning(text: str, first: str) -> None:
    assert FORM.found(text)[0].name == first


def test_nothing_is_found_for_nothing() -> None:
    assert FORM.found("") == [] and FORM.found("zebra") == []


def test_only_what_was_entered_becomes_words() -> None:
    values = {"dataset": "rows.jsonl 'my rows.csv'", "lora_rank": "8", "packing": "false"}
    words = FORM.words({**values, "system": ""})
    assert words == ["sft", "--dataset", "rows.jsonl", "my rows.csv", "--packing", "false"]
    invocation = resolve(COMMAND, words[1:], environ={}, warn=print)
    assert invocation.get(Learning).dataset == ["rows.jsonl", "my rows.csv"]
    assert command_line("ft", words) == "ft sft --dataset rows.jsonl 'my rows.csv' --packing false"
    assert FORM.from_words(words[1:]) == {
        "dataset": "rows.jsonl 'my rows.csv'",
        "packing": "false",
    }


def test_the_file_for_config_says_the_same(tmp_path: Path) -> None:
    values = {"dataset": "rows.jsonl", "lora_rank": "4", "learning_rate": "1e-3"}
    file = tmp_path / "config.yaml"
    file.write_text(FORM.yaml(values), encoding="utf-8")
    assert yaml.safe_load(FORM.yaml(values))["lora_rank"] == 4
    from_file = resolve(COMMAND, ["--config", str(file)], environ={}, warn=print).get(Learning)
    assert from_file == resolve(COMMAND, FORM.words(values)[1:], environ={}, warn=print).get(
        Learning
    )


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("lora_rank", "0", "must be at least 1"),
        ("lora_rank", "x", "expected an integer"),
        ("learning_rate", "fast", "expected a number or none"),
        ("sft_type", "half", "allowed are lora, full"),
        ("dataset", "'open", "No closing quotation"),
        ("dataset", "/etc/passwd", "outside"),
        ("dataset", "rows.jsonl ../up.jsonl", "outside"),
        ("dataset", "HF::../../x#3", "outside"),
        ("dataset", "~/secret.jsonl", "outside"),
        ("lora_rank", "4", ""),
        ("dataset", "rows.jsonl#20", ""),
        ("dataset", "HF::org/rows", ""),
        ("system", "/answer briefly", ""),
        ("lora_rank", "", ""),
    ],
)
def test_a_wrong_field_is_explained(
    name: str, text: str, problem: str, workplace: Workplace
) -> None:
    said = FORM.problem_of(name, text, workplace)
    assert problem in said if problem else said == ""


def test_contradictions_are_found_before_anything_starts(workplace: Workplace) -> None:
    found = FORM.problems({"sft_type": "full", "lora_rank": "4"}, workplace)
    assert found == ["--lora_rank has no effect with --sft_type full; leave it out"]
    assert FORM.problems({"dataset": "rows.jsonl"}, workplace) == []


def test_a_value_is_never_another_flag(workplace: Workplace) -> None:
    for values in ({"dataset": "rows.jsonl --custom_register_path x.py"}, {"system": "--old"}):
        assert any("two dashes" in item for item in FORM.problems(values, workplace))
        with pytest.raises(UsageError, match="two dashes"):
            FORM.words(values)


def test_words_of_a_run_that_execute_code_are_refused(workplace: Workplace) -> None:
    for words in (["--custom_register_path", "x.py"], ["--dataset", "/etc/passwd"]):
        with pytest.raises(UsageError, match=r"terminal only|outside"):
            check_words(COMMAND, words, workplace)
    assert only_in_a_terminal("quant_python") and "trust_remote_code" in FORBIDDEN


def test_a_link_out_of_the_directory_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert "outside" in FORM.problem_of("dataset", "link/passwd", workplace)
    with pytest.raises(UsageError, match="outside"):
        workplace.inside("link/passwd")
    assert workplace.inside("rows.jsonl") == workplace.root / "rows.jsonl"


def test_files_that_name_files_elsewhere_are_refused(workplace: Workplace) -> None:
    good, bad = workplace.root / "good.json", workplace.root / "bad.json"
    good.write_text('{"a": [{"path": "rows.jsonl"}]}', encoding="utf-8")
    bad.write_text('{"a": [{"path": "/etc/passwd"}]}', encoding="utf-8")
    assert FORM.problem_of("deepspeed", "good.json", workplace) == ""
    assert "outside" in FORM.problem_of("deepspeed", "bad.json", workplace)
    assert "outside" in FORM.problem_of("deepspeed", '{"nvme_path": "/mnt"}', workplace)


def test_presets_name_flags_that_exist() -> None:
    known = frozenset(FORM.fields)
    assert presets_of("sft", known) == {"lora": {}}, "others name flags this command lacks"
    assert set(first_of("sft", known)) <= known
    assert all(name for presets in PRESETS.values() for name in presets)


def test_uploads_are_rows_of_a_bounded_size_with_names_of_their_own(
    workplace: Workplace, tmp_path: Path
) -> None:
    source = tmp_path / "..my rows;rm.jsonl"
    source.write_text("{}\n", encoding="utf-8")
    first, second = workplace.take_upload(source), workplace.take_upload(source)
    assert (first, second) == ("uploads/_my_rows_rm.jsonl", "uploads/_my_rows_rm-1.jsonl")
    (tmp_path / "evil.py").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="rows come as"):
        workplace.take_upload(tmp_path / "evil.py")
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(UsageError, match="up to 32 MiB"):
        workplace.take_upload(large)


def test_files_of_rows_are_listed_without_those_of_runs(workplace: Workplace) -> None:
    run = workplace.root / "output" / "m" / "v0-1"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}", encoding="utf-8")
    (run / "logging.jsonl").write_text("", encoding="utf-8")
    (workplace.root / ".hidden").mkdir()
    (workplace.root / ".hidden" / "a.jsonl").write_text("", encoding="utf-8")
    (workplace.root / "more").mkdir()
    (workplace.root / "more" / "b.csv").write_text("", encoding="utf-8")
    assert workplace.files() == ["more/b.csv", "rows.jsonl"]
