"""Power cuts: a run that is killed at random steps, three times, ends with the weights of one that wasn't."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kills")]

WORKER = Path(__file__).with_name("kill_worker.py")
ROWS, ROWS_A_STEP, STEPS = 17, 2, 12


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def ledger(directory: Path) -> dict[int, list[Any]]:
    """Return the rows of each step; of a step that was done twice, those of the last time."""
    steps: dict[int, list[Any]] = {}
    for process, first in lines(directory / "started.jsonl"):
        file = directory / f"ledger-{process}.jsonl"
        for number, rows in enumerate(lines(file) if file.is_file() else [], start=first + 1):
            steps[number] = rows
    return steps


@pytest.mark.parametrize("kind", ["plain", "packed", "streaming"])
def test_three_kills_change_nothing(kind: str, model: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(WORKER), str(model), str(out), kind, str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((out / "ends.json").read_text(encoding="utf-8"))
    killed = [int(signal.SIGKILL)] * 3
    assert found["ends"] == [0, *killed, 0], (seed, done.stderr[-3000:])
    last = f"checkpoint-{STEPS}/adapter_model.safetensors"
    straight, resumed = (load_file(out / name / last) for name in ("straight", "killed"))
    assert set(straight) == set(resumed)
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), (seed, found["steps"], name)
    assert ledger(out / "killed") == ledger(out / "straight"), (seed, found["steps"])
    steps = ledger(out / "straight")
    assert sorted(steps) == list(range(1, STEPS + 1))
    if kind == "plain":  # 9 steps an epoch: each row once in the first
        first = Counter(row for step in range(1, 10) for _, row in steps[step])
        assert first == Counter(range(ROWS))
    log = [row for row in lines(out / "killed" / "logging.jsonl") if "loss" in row]
    assert [row["global_step/max_steps"] for row in log] == [f"{n}/{STEPS}" for n in range(1, 13)]
    assert sorted(path.name for path in (out / "killed").glob("checkpoint-*")) == [
        "checkpoint-10",
        "checkpoint-12",
    ]
    assert not list((out / "killed").glob(".checkpoint-*")), "what was half written is gone"


def test_kills_of_the_command(model: Path, rows: Path, tmp_path: Path) -> None:
    draw = random.Random(seed := random.SystemRandom().randrange(1 << 30))

    def command(output: Path, *words: object) -> list[str]:
        flags = (
            *("sft", "--model_id_or_path", model, "--dataset", rows, "--output_dir", output),
            *("--max_steps", 8, "--batch_size", 2, "--gradient_accumulation_steps", 1),
            *("--dataset_test_ratio", 0.2, "--eval_steps", 1, "--save_steps", 1),
            *("--logging_steps", 1, "--learning_rate", 1e-2, "--lora_dropout", 0.1),
            *("--packing", "true", "--max_length", 64, "--sample_answers", 0, *words),
        )
        return [sys.executable, "-m", "ft_cli", *map(str, flags)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command(tmp_path / "straight"), env=environment, check=True, capture_output=True)
    output = tmp_path / "killed"
    words: tuple[str, ...] = ()
    for step in sorted(draw.sample(range(2, 8), 3)):
        with subprocess.Popen(
            command(output, *words), env=environment, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:  # printed before the step is saved
                if re.match(rf"step {step}/8, loss", line):
                    run.send_signal(signal.SIGKILL)
                    break
        assert run.wait() == -signal.SIGKILL, seed
        words = ("--resume_from_checkpoint", "latest")
    subprocess.run(command(output, *words), env=environment, check=True, capture_output=True)
    straight, resumed = (
        load_file(next(directory.glob("*/v0-*/checkpoint-8")) / "adapter_model.safetensors")
        for directory in (tmp_path / "straight", output)
    )
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), (seed, name)
    assert len(list(output.glob("*/v*-*"))) == 1, "a resumed run goes on in its own directory"
