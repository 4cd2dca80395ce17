"""What a resumed run takes from its checkpoint, and which flags may not say something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ft_cli.commands.sft import SFT
from ft_cli.resuming import FIXED, OF_TODAY, checkpoint_to_resume
from ft_core.command import Invocation
from ft_core.command.resolve import resolve
from ft_core.errors import UsageError


def read(*words: object) -> Invocation:
    return resolve(SFT, [str(word) for word in words], environ={}, warn=lambda _: None)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a run with some flags, as far as arguments go."""
    directory = tmp_path / "run" / "checkpoint-7"
    directory.mkdir(parents=True)
    (tmp_path / "base").mkdir()
    (directory / "adapter_model.safetensors").write_bytes(b"")
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    given = (
        *("--model_id_or_path", tmp_path / "base", "--dataset", "rows.jsonl#9"),
        *("--lora_rank", 4, "--learning_rate", 0.5, "--packing", "true", "--deepspeed", "zero2"),
    )
    saved = {
        **read(*given).plain(),
        "dtype": "fp32",
        "template_type": "jinja",
        "tools_prompt": None,
    }
    (directory / "sft_args.json").write_text(json.dumps(saved), encoding="utf-8")
    return directory


def test_a_resumed_run_takes_its_own_arguments(checkpoint: Path) -> None:
    invocation = read("--resume_from_checkpoint", checkpoint, "--save_steps", 3)
    values = {name: item.value for name, item in invocation.values.items()}
    assert values["dataset"] == ["rows.jsonl#9"] and values["packing"] is True
    assert (values["lora_rank"], values["learning_rate"], values["dtype"]) == (4, 0.5, "fp32")
    assert values["save_steps"] == 3
    assert invocation.values["dataset"].source == "checkpoint"
    assert invocation.values["tools_prompt"].source == "default", "what was none stays so"
    assert values["deepspeed"] is None, "how processes divide the run is said each time"
    assert checkpoint_to_resume(invocation) == str(checkpoint)


def test_a_new_run_takes_the_model_only(checkpoint: Path) -> None:
    only = ("--resume_from_checkpoint", checkpoint, "--resume_only_model", "true")
    invocation = read(*only, "--lora_rank", 9)
    assert invocation.values["dataset"].value == []
    assert invocation.values["dtype"].value == "fp32"
    assert checkpoint_to_resume(invocation) == str(checkpoint)


def test_the_same_again_is_no_change(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parents[1])
    words = ("--lora_rank", 4, "--model_id_or_path", "base", "--template_type", "AUTO")
    assert checkpoint_to_resume(read("--resume_from_checkpoint", checkpoint, *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model_id_or_path", "/elsewhere"), r"--model_id_or_path was .*base and is /elsewhere"),
        (("--lora_rank", 8), "--lora_rank was 4 and is 8"),
        (("--learning_rate", 0.1), r"--learning_rate was 0\.5 and is 0\.1"),
        (("--seed", 1), "--seed was 42 and is 1"),
        (("--sft_type", "full"), "was trained with --sft_type lora, not full"),
    ],
)
def test_another_model_tuner_or_optimizer_is_refused(
    checkpoint: Path, words: tuple[object, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        checkpoint_to_resume(read("--resume_from_checkpoint", checkpoint, *words))


def test_names_are_those_of_flags() -> None:
    known = set(read("--dataset", "x").values)
    assert known >= OF_TODAY | FIXED
