"""Every method of preference by the command itself: the real model, 200 real rows, growing margins, answers, merging.

Steps are of 4 rows, or 8 single answers: with 16, the default, a method takes 20 minutes on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
STEPS = 20
METHODS = {"dpo": "dpo", "orpo": "dpo", "simpo": "dpo", "cpo": "dpo", "kto": "kto"}
"""Methods, and the kind of rows each learns from."""

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(
        not (DATA / "dpo_en_demo.json").is_file(), reason="needs dpo_en_demo.json in ../shared/data"
    ),
]


def ft(*words: object, stdin: str = "") -> str:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("method", METHODS)
def test_margins_grow_and_the_checkpoint_is_of_use(method: str, tmp_path: Path) -> None:
    rows = f"{DATA / METHODS[method]}_en_demo.json#200"
    ft(
        *("rlhf", "--rlhf_type", method, "--model_type", "smollm2-135m-instruct"),
        *("--dataset", rows, "--max_steps", STEPS, "--output_dir", tmp_path / "run"),
        *("--gradient_accumulation_steps", 8 if method == "kto" else 4),
        # Steps of single answers have margins between different prompts, which say little: rows are looked at again.
        *(("--val_dataset", f"{rows[:-4]}#100", "--eval_steps", STEPS) if method == "kto" else ()),
        *("--logging_steps", 1, "--sample_answers", 0, "--add_output_dir_suffix", "false"),
    )
    lines = (tmp_path / "run" / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    if method == "kto":
        (after,) = [row["eval_rewards/margins"] for row in log if "eval_rewards/margins" in row]
        assert after > 0  # where training began it is 0: the model was the reference
    else:
        margins = [row["rewards/margins"] for row in log if "rewards/margins" in row]
        quarter = STEPS // 4
        assert len(margins) >= STEPS
        assert sum(margins[-quarter:]) > sum(margins[:quarter]), margins

    checkpoint = tmp_path / "run" / f"checkpoint-{STEPS}"
    answer = ft("infer", "--ckpt_dir", checkpoint, "--max_new_tokens", 12, stdin="Say hello.\n")
    assert answer.strip()
    ft("merge-lora", "--ckpt_dir", checkpoint)
    merged = checkpoint.with_name(f"{checkpoint.name}-merged")
    model = AutoModelForCausalLM.from_pretrained(merged)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say hello."}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**prompt, max_new_tokens=12, do_sample=False).shape[1] > 12
