"""``ft-serve infer`` from its words to its files, with a tiny model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ft_core.testing import tiny_model
from ft_serve.console import main


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", "llama", initializer_range=0.3)


def adapter(base: Path, directory: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.5)
        adapted.save_pretrained(str(directory))
    return directory


@pytest.fixture(scope="module")
def adapters(base: Path) -> tuple[Path, Path]:
    return adapter(base, base.parent / "one", 1), adapter(base, base.parent / "two", 2)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"query": f"question {i}"}) + "\n" for i in range(4)))
    return file


def infer(*words: object) -> None:
    settings = ("--max_new_tokens", 6, "--temperature", 0, "--dtype", "fp32")
    assert main([str(word) for word in ("infer", *words, *settings)]) == 0


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def answered(tmp_path: Path, prompts: Path, *words: object) -> list[str]:
    file = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    infer("--prompts", prompts, "--result_file", file, *words)
    return [row["response"] for row in read(file)]


def test_adapters_answer_alone_and_beside_each_other(
    base: Path, adapters: tuple[Path, Path], prompts: Path, tmp_path: Path
) -> None:
    one, two = adapters
    plain = answered(tmp_path, prompts, "--model_id_or_path", base)
    first = answered(tmp_path, prompts, "--ckpt_dir", one)
    assert first != plain
    both = answered(tmp_path, prompts, "--ckpt_dir", one, "--lora_modules", f"second={two}")
    assert both == first
    named = ("--model_id_or_path", base, "--lora_modules", f"second={two}", f"first={one}")
    assert answered(tmp_path, prompts, *named) == answered(tmp_path, prompts, "--ckpt_dir", two)


def test_a_chat_goes_from_adapter_to_adapter_and_model_to_model(
    base: Path,
    adapters: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = adapters
    lines = ["hi", "clear", "/adapter second", "hi", "clear", "/adapter none", "hi"]
    lines += [f"/model {two}", "hi", f"/model {base}", "hi", "/model /nowhere", "clear", "hi"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    file = tmp_path / "chat.jsonl"
    infer("--ckpt_dir", one, "--lora_modules", f"second={two}", "--result_file", file)
    tuned, second, plain, other, again, kept = [row["response"] for row in read(file)]
    assert len({tuned, second, plain}) == 3
    assert (other, again, kept) == (second, plain, plain)
    assert "error: " in capsys.readouterr().out


def test_an_interrupted_file_is_completed(base: Path, prompts: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    words = ("--model_id_or_path", base, "--prompts", prompts, "--result_file", file)
    infer(*words)
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[1:3]))
    infer(*words)
    assert file.read_text() == whole


def test_the_generation_config_gets_the_sampling_but_no_length(
    adapters: tuple[Path, Path], prompts: Path, tmp_path: Path
) -> None:
    (adapters[0] / "generation_config.json").write_text('{"max_new_tokens": 5, "top_k": 3}')
    answered(tmp_path, prompts, "--ckpt_dir", adapters[0], "--repetition_penalty", 1.5)
    saved = json.loads((adapters[0] / "generation_config.json").read_text())
    assert saved["repetition_penalty"] == 1.5
    assert saved["do_sample"] is False
    assert "max_new_tokens" not in saved


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--lora_modules", "a=/nowhere"), "/nowhere"),
        (("--lora_modules", "whole={base}"), "whole model"),
        (("--result_file", "/proc/nowhere/a"), "--result_file"),
        (("--eval_human", "false"), "--prompts"),
    ],
)
def test_what_cannot_work_is_refused(
    base: Path, prompts: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str], part: str
) -> None:
    asked = () if "false" in words else ("--prompts", prompts)
    given = [word.replace("{base}", str(base)) for word in words]
    assert main([str(w) for w in ("infer", "--model_id_or_path", base, *asked, *given)]) in (1, 2)
    message = capsys.readouterr().err
    assert part in message and "Traceback" not in message
