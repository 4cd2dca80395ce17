"""``ft rlhf --rlhf_type gkd``: a student comes nearer to its teacher, and bad input is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_cli.main import main
from ft_core.testing import tiny_model

pytest.importorskip("trl.experimental.gkd")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rlhf")]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose next tokens are far from those of the student."""
    path = tiny_model(tmp_path_factory.mktemp("teacher") / "tiny-teacher", seed=3)
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    model.save_pretrained(path)
    return path


def words(model: Path, rows: Path, output: Path, *more: object) -> list[str]:
    settings = {
        "rlhf_type": "gkd",
        "model_id_or_path": model,
        "template_type": "chatml",
        "dataset": rows,
        "output_dir": output,
        "batch_size": 5,
        "gradient_accumulation_steps": 2,
        "max_completion_length": 6,
        "learning_rate": 1e-2,
        "max_steps": 12,
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


def divergence(student: Any, teacher: Any, tokenizer: Any, rows: Path) -> float:
    """KL of what a teacher says first in answer to a row from what a student does, in nats."""
    total = 0.0
    lines = rows.read_text().splitlines()
    for line in lines:
        question = json.loads(line)["messages"][0]["content"]
        head = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(head, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            theirs, ours = (
                item(input_ids=ids).logits[0, -1].log_softmax(-1) for item in (teacher, student)
            )
        total += float((theirs.exp() * (theirs - ours)).sum())
    return total / len(lines)


@pytest.mark.parametrize(
    "more",
    [
        ("--sft_type", "full", "--lmbda", 0),
        ("--sft_type", "full", "--lmbda", 1, "--beta", 0, "--temperature", 1),
        ("--modules_to_save", "lm_head", "--lmbda", 0.5, "--seq_kd", "true"),
    ],
    ids=["rows", "own-answers", "teacher-answers"],
)
def test_a_student_comes_nearer_to_its_teacher(
    model: Path, teacher: Path, rows: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    given = ("--teacher_model_id_or_path", teacher, *more)
    assert main(words(model, rows, tmp_path, *given)) == 0
    run = run_of(tmp_path)
    load = AutoModelForCausalLM.from_pretrained
    checkpoint = run / "checkpoint-12"
    whole = "full" in more
    measured = (load(teacher), AutoTokenizer.from_pretrained(checkpoint), rows)
    before = divergence(load(model), *measured)
    after = load(checkpoint) if whole else PeftModel.from_pretrained(load(model), checkpoint)
    assert divergence(after.eval(), *measured) < 0.95 * before
    losses = [row["loss"] for row in log_of(run)]
    if "--lmbda" in more and 0 in more and "--beta" not in more:
        assert losses[-1] < 0.9 * losses[0]
    result = json.loads((run / "run.json").read_text())["result"]
    assert result["global_step"] == 12 and result["trained_tokens"] > 0


def test_only_tokens_of_answers_are_compared(
    model: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    """The first loss is the divergence that the formula gives over the answers of all rows."""
    given = ("--teacher_model_id_or_path", teacher, "--lmbda", 0, "--sft_type", "full")
    once = ("--max_steps", 1, "--learning_rate", 1e-9)
    assert main(words(model, rows, tmp_path, *given, *once)) == 0
    run = run_of(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoint-1")
    student, frozen = (AutoModelForCausalLM.from_pretrained(path) for path in (model, teacher))
    total, count = 0.0, 0
    for line in rows.read_text().splitlines():
        question, answer = json.loads(line)["messages"]
        head = f"<|im_start|>user\n{question['content']}<|im_end|>\n<|im_start|>assistant\n"
        start = len(tokenizer(head, add_special_tokens=False)["input_ids"])
        text = f"{head}{answer['content']}<|im_end|>"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            p, q = (
                m(input_ids=ids).logits[0, start - 1 : -1].softmax(-1) for m in (frozen, student)
            )
        middle = (p + q) / 2
        parts = [(item * (item / middle).log()).sum() for item in (p, q)]
        total, count = total + float(sum(parts)) / 2, count + len(p)
    assert log_of(run)[0]["loss"] == pytest.approx(total / count, rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "name it with --teacher_model_type or --teacher_model_id_or_path"),
        (("TEACHER", "--beta", 2), "gkd takes a number from 0 to 1"),
        (("TEACHER", "--lmbda", 2), "--lmbda"),
        (("TEACHER", "--packing", "true"), "--packing True and --rlhf_type gkd"),
        (("TEACHER", "--sft_type", "vera"), "--sft_type vera and --rlhf_type gkd"),
        (("TEACHER", "--loss_type", "sigmoid"), "--loss_type sigmoid is no loss of gkd"),
    ],
)
def test_what_cannot_be_done_is_named(
    model: Path,
    teacher: Path,
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[object, ...],
    message: str,
) -> None:
    named = ("--teacher_model_id_or_path", teacher)
    given = [part for flag in flags for part in (named if flag == "TEACHER" else (flag,))]
    assert main(words(model, rows, tmp_path, *given)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
