"""``ft rlhf --rlhf_type grpo`` and ``rloo``: a toy reward is learned, checkpoints are plain, bad input is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ft_cli.main import main

pytest.importorskip("trl")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rlhf")]

WORDS = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki")


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"say {word}"}]} for word in WORDS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def words(method: str, model: Path, rows: Path, output: Path, *more: object) -> list[str]:
    settings = {
        "rlhf_type": method,
        "model_id_or_path": model,
        "template_type": "chatml",
        "dataset": rows,
        "output_dir": output,
        "reward_funcs": "regex:a",
        "num_generations": 16,
        "batch_size": 64,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "logging_steps": 1,
        "dtype": "fp32",
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["rlhf", *flags, *map(str, more)]


def run_of(output: Path) -> Path:
    return next(output.glob("*/v0-*"))


def log_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "logging.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize(
    ("method", "tuner"),
    [
        ("grpo", ("--sft_type", "full")),
        ("rloo", ("--sft_type", "full")),
        # The head of a random model is too weak for an adapter below it to say much.
        ("grpo", ("--sft_type", "lora", "--modules_to_save", "lm_head")),
    ],
    ids=["grpo", "rloo", "grpo-lora"],
)
def test_a_toy_reward_is_learned(
    method: str, tuner: tuple[str, ...], model: Path, prompts: Path, tmp_path: Path
) -> None:
    assert main(words(method, model, prompts, tmp_path, *tuner, "--max_steps", 30)) == 0
    run = run_of(tmp_path)
    rewards = [row["reward"] for row in log_of(run)]
    assert sum(rewards[:3]) / 3 < 0.65 and sum(rewards[-3:]) / 3 > 0.85
    assert (run / "images" / "train_reward.png").is_file()
    assert {"run.json", "run_card.md", "checkpoint-30"} <= {item.name for item in run.iterdir()}
    answered = json.loads((run / "run.json").read_text())["result"]["trained_tokens"]
    assert 30 * 64 <= answered <= 30 * 64 * 8


def test_an_adapter_is_kept_near_the_model_and_plain_peft_loads_it(
    model: Path, prompts: Path, tmp_path: Path
) -> None:
    more = ("--beta", 0.1, "--save_steps", 2, "--save_total_limit", 1, "--optim", "muon")
    rewards = ("--reward_funcs", "regex:a", "length", "--reward_weights", 1, 0.5)
    assert main(words("grpo", model, prompts, tmp_path, *more, *rewards)) == 0
    run = run_of(tmp_path)
    log = log_of(run)
    assert log[0]["kl"] == pytest.approx(0, abs=1e-5) and log[-1]["kl"] > 0
    for row in log:
        total = row["rewards/regex/mean"] + 0.5 * row["rewards/length/mean"]
        assert row["reward"] == pytest.approx(total, abs=1e-4)
    assert [item.name for item in run.glob("checkpoint-*")] == ["checkpoint-4"]
    assert not (run / "checkpoint-4" / "ref").exists()
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.arange(3, 20)[None]
    plain = base(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(base, run / "checkpoint-4")
    assert (adapted(input_ids=ids).logits - plain).abs().max() > 1e-3
    further = ("--resume_from_checkpoint", run / "checkpoint-4", "--resume_only_model", "true")
    again = words("grpo", model, prompts, tmp_path / "again", *further, "--max_steps", 1)
    assert main(again) == 0


def test_a_reward_model_rewards_answers(model: Path, prompts: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": w, "response": f"{w} yes", "rejected_response": f"{w} no"} for w in WORDS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = (
        *("rlhf", "--rlhf_type", "rm", "--model_id_or_path", model, "--template_type", "chatml"),
        *("--dataset", pairs, "--output_dir", tmp_path / "rm", "--max_steps", 2, "--dtype", "fp32"),
    )
    assert main([*map(str, made)]) == 0
    checkpoint = run_of(tmp_path / "rm") / "checkpoint-2"
    given = ("--reward_funcs", f"model:{checkpoint}")
    assert main(words("rloo", model, prompts, tmp_path / "out", *given)) == 0
    name = "rewards/model_checkpoint-2/mean"
    assert all(
        row["reward"] == pytest.approx(row[name]) for row in log_of(run_of(tmp_path / "out"))
    )
    load = AutoModelForSequenceClassification.from_pretrained
    PeftModel.from_pretrained(load(model, num_labels=1), checkpoint)


def test_a_dry_run_shows_a_prompt_and_writes_nothing(
    model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("grpo", model, prompts, tmp_path, "--dry_run")) == 0
    assert "<|im_start|>user\nsay ba<|im_end|>\n<|im_start|>assistant\n" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--reward_funcs",), "--reward_funcs"),
        (("--reward_funcs", "exact"), "8 of 8 rows have no answer"),
        (("--reward_funcs", "kindness"), "there is no such reward"),
        (("--num_generations", 7), "aren't groups of --num_generations 7"),
        (("--packing", "true"), "--packing True and --rlhf_type grpo"),
        (("--streaming", "true"), "--streaming True and --rlhf_type grpo"),
        (("--deepspeed", "zero2"), "--deepspeed zero2 and --rlhf_type grpo"),
        (("--fsdp", "full_shard"), "and --rlhf_type grpo can't be used together"),
        (("--sequence_parallel_size", 2), "--sequence_parallel_size 2"),
        (("--sft_type", "ia3"), "--sft_type ia3 and --rlhf_type grpo"),
        (("--temperature", 0), "--temperature 0"),
        (("--loss_type", "hinge"), "--loss_type hinge is no loss of grpo"),
        (("--beta", -1), "--beta -1"),
        (("--max_new_tokens", 9), "--max_completion_length"),
        (("--val_dataset", "x.jsonl"), "nothing is held out"),
    ],
)
def test_what_cannot_be_done_is_named(
    model: Path,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[object, ...],
    message: str,
) -> None:
    assert main(words("grpo", model, prompts, tmp_path, *flags)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*/*/checkpoint-*"))
