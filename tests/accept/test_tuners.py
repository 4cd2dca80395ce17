"""Every tuner and way to optimize by the command itself: the real model, 100 real rows, answers, merging."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
ROWS = ROOT.parent / "shared" / "data" / "alpaca_en_demo.json"
MODEL = "smollm2-135m-instruct"

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(not ROWS.is_file(), reason="needs alpaca_en_demo.json in ../shared/data"),
]

RUNS = {
    "lora": "--learning_rate 1e-3",
    "dora": "--use_dora true --use_rslora true --learning_rate 5e-4",
    "pissa": "--init_lora_weights pissa_niter_4 --learning_rate 5e-4",
    "eva": "--init_lora_weights eva --learning_rate 1e-3",
    "lora-plus": "--lora_lr_ratio 16 --learning_rate 3e-4",
    "older-layout": "--tuner_backend swift --learning_rate 1e-3",
    "neftune": "--neftune_noise_alpha 5 --learning_rate 1e-3",
    "longlora": "--sft_type longlora --learning_rate 3e-4",
    "adalora": "--sft_type adalora --learning_rate 2e-2",
    "ia3": "--sft_type ia3 --learning_rate 2e-2",
    "vera": "--sft_type vera --learning_rate 2e-2",
    "boft": "--sft_type boft --learning_rate 2e-3",
    "fourierft": "--sft_type fourierft --learning_rate 2e-2",
    "adapter": "--sft_type adapter --learning_rate 1e-3",
    "llamapro": "--sft_type llamapro --learning_rate 1e-3",
    "full": "--sft_type full --freeze_parameters 0.5 --learning_rate 1e-4",
    "lisa": "--sft_type full --lisa_activated_layers 2 --lisa_step_interval 4 --learning_rate 1e-4",
    "galore": "--sft_type full --use_galore true --learning_rate 1e-3",
    "q-galore": "--sft_type full --use_galore true --galore_quantization true --galore_proj_quant true "
    "--galore_update_proj_gap 4 --learning_rate 1e-3",
}
"""Flags of each run; learning rates are high, since twelve steps are few."""

WHOLE = ("llamapro", "full", "lisa", "galore", "q-galore")
BEFORE = "--learning_rate 0 --max_steps 1"


def ft(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
    )


def train(flags: str, output: Path) -> tuple[Path, float]:
    """Run the command; return the checkpoint, and the loss of all rows after the last step."""
    rows = f"{ROWS}#100"
    done = ft(
        *("sft", "--model_type", MODEL, "--dataset", rows, "--val_dataset", rows),
        *("--max_steps", 12, "--batch_size", 4, "--gradient_accumulation_steps", 1),
        *("--eval_steps", 1000, "--eval_batch_size", 8, "--sample_answers", 0),
        *("--output_dir", output, "--add_output_dir_suffix", "false", *flags.split()),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    log = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    loss = next(row["eval_loss"] for row in reversed(log) if "eval_loss" in row)
    (checkpoint,) = output.glob("checkpoint-*")
    return checkpoint, loss


@pytest.fixture(scope="module")
def loss_before(tmp_path_factory: pytest.TempPathFactory) -> float:
    return train(BEFORE, tmp_path_factory.mktemp("before"))[1]


def plain_answer(directory: Path) -> str:
    """Return what plain transformers answers."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))


@pytest.mark.parametrize("name", RUNS)
def test_it_learns_answers_and_merges(name: str, loss_before: float, tmp_path: Path) -> None:
    checkpoint, loss = train(RUNS[name], tmp_path / "run")
    assert loss < loss_before - 0.02

    question = "What is the capital of France?\nexit\n"
    answered = ft(
        "infer",
        "--ckpt_dir",
        checkpoint,
        "--max_new_tokens",
        24,
        "--temperature",
        0,
        stdin=question,
    )
    assert answered.returncode == 0, answered.stderr[-2000:]
    assert "Paris" in answered.stdout

    if name in WHOLE:
        assert "Paris" in plain_answer(checkpoint)
        return
    merged = ft("merge-lora", "--ckpt_dir", checkpoint)
    if name == "adapter":
        assert merged.returncode == 1 and "can't be merged: its bottlenecks" in merged.stderr
        return
    assert merged.returncode == 0, merged.stderr[-2000:]
    assert "Paris" in plain_answer(checkpoint.with_name(f"{checkpoint.name}-merged"))
