"""The ft command: its table, and the message for each kind of bad input, before any long work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ft_cli.main import TABLE, main
from ft_core.testing import tiny_model

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", "llama")


def fails(capsys: pytest.CaptureFixture[str], *words: object, code: int = 1) -> str:
    assert main([str(word) for word in words]) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.rindex("error: ") :]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list(TABLE))
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: ft {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ft 0.")


ROWS = {
    "missing": (None, ["no such file", "nowhere.jsonl"]),
    "empty": ("", ["empty"]),
    "invalid": ('{"messages": []}\n{broken\n', [":2", "JSON"]),
    "mixed": (
        json.dumps(GOOD) + '\n{"instruction": "a", "input": "", "output": "b"}\n',
        [":2", "mixed"],
    ),
    "no answers": ('{"messages": [{"role": "user", "content": "hi"}]}\n', ["answer"]),
    "wrong types": ('{"messages": "hi"}\n', ["messages"]),
    "not rows": ("[1, 2]", ["object"]),
}


@pytest.mark.parametrize("name", list(ROWS))
def test_bad_files(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, name: str
) -> None:
    text, parts = ROWS[name]
    suffix = ".json" if name == "not rows" else ".jsonl"
    file = tmp_path / f"nowhere{suffix}"
    if text is not None:
        write(file, text)
    message = fails(
        capsys, "sft", "--model_id_or_path", model, "--dataset", file, "--output_dir", tmp_path
    )
    lowered = message.lower()
    assert all(part.lower() in lowered for part in parts), message
    assert not list(tmp_path.glob("tiny"))


def test_a_directory_instead_of_a_file(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    message = fails(capsys, "sft", "--model_id_or_path", model, "--dataset", tmp_path)
    assert "directory" in message


def test_one_bad_row_is_dropped_and_shown_or_stops(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    bad = {"messages": [{"role": "user", "content": "no answer"}]}
    file = write(
        tmp_path / "rows.jsonl", "\n".join(json.dumps(row) for row in (GOOD, bad, GOOD, GOOD))
    )
    words = ["preview", "--model_id_or_path", str(model), "--dataset", str(file), "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "dropped 1" in captured.err and "rows.jsonl:2" in captured.err
    message = fails(capsys, *words, "--check_dataset_strategy", "error")
    assert "rows.jsonl:2" in message


BAD_FLAGS = {
    "--model_type": (
        ["--model_type", "smollm2-135m-instrct"],
        2,
        ["Did you mean", "smollm2-135m-instruct"],
    ),
    "--template_type": (["--template_type", "chatmll"], 2, ["Did you mean", "chatml"]),
    "--max_length": (["--max_length", "0"], 2, ["--max_length 0"]),
    "--lora_rank": (["--lora_rank", "-4"], 2, ["--lora_rank -4", "at least 1"]),
    "--target_modules": (["--target_modules", "qq_proj"], 2, ["qq_proj", "q_proj"]),
    "--target_regex": (["--target_regex", "(["], 2, ["regular expression"]),
    "--output_dir": (["--output_dir", "/proc/nowhere"], 2, ["--output_dir", "can't write"]),
    "too short": (["--max_length", "5"], 1, ["--max_length 5", "too_long"]),
    "--dtype": (["--dtype", "fp16"], 2, ["--dtype fp16"]),
    "--report_to": (["--report_to", "tensorbord"], 2, ["tensorboard"]),
    "--resume": (["--resume_from_checkpoint", "/nowhere"], 2, ["--resume_from_checkpoint"]),
}


@pytest.mark.parametrize("name", list(BAD_FLAGS))
def test_bad_flags(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    tmp_path: Path,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, parts = BAD_FLAGS[name]
    file = write(tmp_path / "rows.jsonl", "\n".join([json.dumps(GOOD)] * 4))
    chosen = [] if name == "--model_type" else ["--model_id_or_path", model]
    message = fails(capsys, "sft", *chosen, "--dataset", file, *words, code=code)
    assert all(part in message for part in parts), message


def test_unknown_dataset(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    message = fails(
        capsys, "sft", "--model_id_or_path", model, "--dataset", "starter-instrucions", code=2
    )
    assert "starter-instructions" in message


def test_commands_need_their_input(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    assert "--dataset" in fails(capsys, "sft", "--model_id_or_path", model, code=2)
    assert "--model_type" in fails(capsys, "infer", "--eval_human", "true", code=2)
    assert "--ckpt_dir" in fails(capsys, "merge-lora", code=2)
    assert "adapter_config.json" in fails(capsys, "infer", "--ckpt_dir", tmp_path)
    assert "models, templates, datasets" in fails(capsys, "list", code=2)


def test_flags_without_effect_say_so(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    assert main(["merge-lora", "--ckpt_dir", str(model), "--temperature", "1"]) == 1
    message = capsys.readouterr().err
    assert "--temperature has no effect" in message and "whole model" in message


def test_doctor_says_what_will_be_used_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "torch" in text and "dtype" not in text.splitlines()[0]
    assert any(line.strip().startswith("full training: ") for line in text.splitlines())


def test_config_schema_describes_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config-schema", "sft"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["properties"]["sft_type"]["enum"][:2] == ["lora", "full"]
    assert schema["properties"]["lora_rank"]["default"] == 8
