"""Two processes align a model as one does: pairs, anchors and references are those of the whole step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.accept, pytest.mark.xdist_group("rlhf_processes")]

ROWS = [
    {"query": f"say {word}", "response": word * 2, "rejected_response": word[::-1]}
    for word in ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu")
]


def align(model: Path, output: Path, method: str, processes: int, *more: str) -> list[Any]:
    """Train four steps of four rows, and return the log's rows of training and evaluation."""
    rows = output.parent / "rows.jsonl"  # the order of rows depends on where they come from
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    words = (
        *("rlhf", "--rlhf_type", method, "--model_id_or_path", model, "--template_type", "chatml"),
        *("--dataset", rows, "--output_dir", output, "--dataset_test_ratio", 0.2, "--max_steps", 4),
        *("--batch_size", 1, "--gradient_accumulation_steps", 4 // processes, "--eval_steps", 4),
        *("--learning_rate", 1e-2, "--logging_steps", 1, "--lora_dropout", 0, "--dtype", "fp32"),
        *("--sample_answers", 0, "--dataloader_num_workers", 0, *more),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if processes > 1:
        environment["NPROC_PER_NODE"] = str(processes)
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-5000:])
    (log,) = output.glob("*/v*/logging.jsonl")
    found = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [row for row in found if "loss" in row or "eval_loss" in row]


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("dpo", ()),
        ("dpo", ("--fsdp", "full_shard")),
        ("kto", ()),
        ("kto", ("--loss_type", "bco")),
        ("rm", ()),
        ("rm", ("--fsdp", "full_shard")),
    ],
    ids=["dpo", "dpo-fsdp", "kto", "bco", "rm", "rm-fsdp"],
)
def test_two_processes_are_one_run(
    model: Path, tmp_path: Path, method: str, flags: tuple[str, ...]
) -> None:
    plain = tuple(flag for flag in flags if flag not in ("--fsdp", "full_shard"))
    one = align(model, tmp_path / "one", method, 1, *plain)
    two = align(model, tmp_path / "two", method, 2, *flags)
    assert len(one) == len(two) == 5
    for alone, shared in zip(one, two, strict=True):
        assert alone.keys() == shared.keys()
        for name, value in alone.items():
            if name.removeprefix("eval_").startswith(("loss", "rewards/", "logps/", "kl", "nll")):
                assert shared[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
