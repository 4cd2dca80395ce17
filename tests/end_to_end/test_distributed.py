"""Runs of two processes by the command, as a person starts them: what they write, say and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from ft_train.resume import check_resumable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("processes"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
]


def ft(
    *words: object, processes: int | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if processes is not None:
        environment["NPROC_PER_NODE"] = str(processes)
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout[-3000:], done.stderr[-5000:])
    return done


def words(model: Path, rows: Path, output: Path, *more: object) -> tuple[object, ...]:
    return (
        *("sft", "--model_id_or_path", model, "--dataset", rows, "--output_dir", output),
        *("--max_steps", 4, "--batch_size", 1, "--eval_steps", 2, "--dataset_test_ratio", 0.3),
        *("--learning_rate", 1e-2, "--logging_steps", 1, "--lora_dropout", 0, "--dtype", "fp32"),
        *more,
    )


def losses(output: Path) -> list[float]:
    (directory,) = output.glob("*/v*")  # one for all processes
    lines = (directory / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    return [row[name] for row in log for name in ("loss", "eval_loss") if name in row]


def record(output: Path) -> dict[str, Any]:
    (file,) = output.glob("*/v*/run.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def one(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of one process that packs rows, two packs a step."""
    output = tmp_path_factory.mktemp("one")
    packed = ("--packing", "true", "--max_length", 64)
    ft(*words(model, rows, output, "--gradient_accumulation_steps", 2, *packed))
    return losses(output)


@pytest.mark.parametrize(
    ("flags", "accumulation", "wrapped"),
    [
        ((), 1, "DDP"),
        (("--deepspeed", "default-zero2"), 1, "ZeRO-2"),
        (("--deepspeed", "default-zero3"), 1, "ZeRO-3"),
        (("--fsdp", "full_shard"), 1, "FSDP2"),
        (("--sequence_parallel_size", 2), 2, "DDP"),
    ],
    ids=["ddp", "zero2", "zero3", "fsdp", "sequence"],
)
def test_two_processes_are_one_run(
    one: list[float],
    model: Path,
    rows: Path,
    tmp_path: Path,
    flags: tuple[object, ...],
    accumulation: int,
    wrapped: str,
) -> None:
    packed = ("--packing", "true", "--max_length", 64, *flags)
    done = ft(
        *words(model, rows, tmp_path, "--gradient_accumulation_steps", accumulation, *packed),
        processes=2,
    )
    assert losses(tmp_path) == pytest.approx(one, rel=1e-4)
    found = record(tmp_path)
    assert found["status"] == "done" and found["result"]["wrapped"] == wrapped
    assert done.stdout.count("run directory:") == 1, "only the first process speaks"
    (checkpoint,) = tmp_path.glob("*/v*/checkpoint-4")
    assert (checkpoint / "adapter_model.safetensors").is_file()
    if wrapped in ("ZeRO-3", "FSDP2"):
        check_parts_are_read(checkpoint, rows, tmp_path)


def check_parts_are_read(checkpoint: Path, rows: Path, tmp_path: Path) -> None:
    """Check that merge-lora and infer take a checkpoint of parts only, as other programs write it."""
    merged = checkpoint.with_name("checkpoint-4-merged")
    ft("merge-lora", "--ckpt_dir", checkpoint)
    expected = load_file(merged.rename(tmp_path / "expected") / "model.safetensors")
    weights = load_file(checkpoint / "adapter_model.safetensors")
    if not (
        checkpoint / "latest"
    ).is_file():  # without parts of DeepSpeed: as accelerate writes FSDP's
        named = {name.replace(".weight", ".default.weight"): item for name, item in weights.items()}
        writer = FileSystemWriter(checkpoint / "pytorch_model_fsdp_0")
        save({"model": named}, storage_writer=writer, no_dist=True)
    (checkpoint / "adapter_model.safetensors").unlink()
    said = ft("merge-lora", "--ckpt_dir", checkpoint).stderr
    assert "putting together the parts" in said
    found = load_file(merged / "model.safetensors")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)
    (checkpoint / "adapter_model.safetensors").unlink()
    said = ft(
        "infer", "--ckpt_dir", checkpoint, "--val_dataset", rows, "--max_new_tokens", 2
    ).stderr
    assert "putting together the parts" in said
    (answers,) = (checkpoint / "infer_result").glob("*.jsonl")
    lines = answers.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10 and all("response" in json.loads(line) for line in lines)


def test_a_signal_saves_a_checkpoint_of_all(model: Path, rows: Path, tmp_path: Path) -> None:
    flags = words(model, rows, tmp_path, "--gradient_accumulation_steps", 1, "--save_steps", 100)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NPROC_PER_NODE": "2"}
    with subprocess.Popen(
        [sys.executable, "-m", "ft_cli", *map(str, flags), "--max_steps", "200"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("step 2/200, loss"):
                run.terminate()
                break
        _, said = run.communicate()
    assert run.returncode == 130, said[-3000:]
    assert "Traceback" not in said, said[-3000:]
    assert record(tmp_path)["status"] == "interrupted"
    (checkpoint,) = tmp_path.glob("*/v*/checkpoint-*")
    check_resumable(checkpoint)


def test_faults_are_said_by_name(model: Path, rows: Path, tmp_path: Path) -> None:
    alone = ft(*words(model, rows, tmp_path, "--sequence_parallel_size", 2), code=2)
    assert "doesn't divide the 1 process of this run; set NPROC_PER_NODE" in alone.stderr
    both = ft(*words(model, rows, tmp_path, "--fsdp", "full_shard", "--deepspeed", "zero2"), code=2)
    assert "--deepspeed zero2 and --fsdp full_shard can't be used together" in both.stderr
    heads = ft(*words(model, rows, tmp_path, "--sequence_parallel_size", 3), processes=3, code=2)
    assert "--sequence_parallel_size 3" in heads.stderr and "heads" in heads.stderr
    assert "Traceback" not in heads.stderr and "ChildFailedError" not in heads.stderr
    backend = ft(*words(model, rows, tmp_path, "--ddp_backend", "nccl"), processes=2, code=2)
    assert "--ddp_backend nccl needs a GPU; use one of" in backend.stderr
