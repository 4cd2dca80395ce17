"""Rows from the command line to training: encoded ahead, packed, grouped, streamed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ft = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def write(file: Path, count: int, *, word: str = "la") -> Path:
    rows = [
        {"query": f"say {i}", "response": f"{word} " * (1 + i % 9) + str(i)} for i in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))


def log_of(output: Path) -> list[dict[str, Any]]:
    (run,) = output.glob("tiny-llama/v0-*")
    return [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]


def test_training_finds_what_was_encoded_ahead(ft: Ft, model: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", 60)
    common = ("--model_id_or_path", model, "--max_length", 100, "--dataset_test_ratio", 0.1)
    first = ft("data", "encode", rows, *common)
    assert "train: " in first.stdout and "evaluation: " in first.stdout
    assert "from the cache" not in first.stderr
    assert ft("data", "encode", rows, *common).stderr.count("from the cache") == 2
    assert ft("sft", "--dataset", rows, *common, "--dry_run").stderr.count("from the cache") == 2
    other = ft("data", "encode", rows, *common, "--recipe", "pt")
    assert "from the cache" not in other.stderr


@pytest.mark.parametrize("packing", ["false", "true"])
def test_micro_batches_are_joined_where_memory_suffices(
    ft: Ft, model: Path, tmp_path: Path, packing: str
) -> None:
    rows = write(tmp_path / "rows.jsonl", 40)
    common = (
        *("sft", "--model_id_or_path", model, "--dataset", rows, "--packing", packing),
        *("--max_length", 60, "--lora_dropout", 0, "--dtype", "fp32", "--learning_rate", 1e-2),
        *("--num_train_epochs", 2, "--logging_steps", 1, "--report_to", "none"),
    )
    joined = ft(*common, "--output_dir", tmp_path / "joined")
    assert "16 micro-batches of 1 at once" in joined.stderr
    cut = ft(*common, "--output_dir", tmp_path / "cut", "--join_micro_batches", "false")
    assert "at once" not in cut.stderr
    found, expected = (
        [row["loss"] for row in log_of(tmp_path / name) if "loss" in row]
        for name in ("joined", "cut")
    )
    assert len(found) >= 2 and found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("extra", [(), ("--lazy_tokenize", "true"), ("--packing", "true")])
def test_the_loss_of_each_data_set_is_logged(
    ft: Ft, model: Path, tmp_path: Path, extra: tuple[object, ...]
) -> None:
    files = [write(tmp_path / f"{name}.jsonl", 12, word=name) for name in ("pi", "po")]
    common = (
        *("sft", "--model_id_or_path", model, "--max_steps", 2, "--logging_steps", 1),
        *("--batch_size", 8, "--gradient_accumulation_steps", 1, "--max_length", 200),
        *("--report_to", "none", "--output_dir", tmp_path / "out", "--log_source_loss", "true"),
    )
    ft(*common, "--dataset", *files, *extra)
    first = log_of(tmp_path / "out")[0]
    assert min(first["pi_loss"], first["po_loss"]) <= first["loss"]
    assert max(first["pi_loss"], first["po_loss"]) >= first["loss"]
    if not extra:
        alone = ft(
            *common[:-4], "--output_dir", tmp_path / "one", *common[-2:], "--dataset", files[0]
        )
        assert "--log_source_loss has no effect" in alone.stderr


@pytest.mark.parametrize("extra", [(), ("--packing", "true"), ("--dataloader_num_workers", 2)])
def test_a_stream_goes_on_where_it_stopped(
    ft: Ft, model: Path, tmp_path: Path, extra: tuple[object, ...]
) -> None:
    files = [write(tmp_path / f"{name}.jsonl", count) for name, count in (("a", 11), ("b", 7))]
    words = (
        *("sft", "--model_id_or_path", model, "--dataset", *files, "--streaming", "true"),
        *("--max_steps", 6, "--save_steps", 3, "--save_total_limit", -1, "--save_only_model"),
        *("false", "--batch_size", 2, "--gradient_accumulation_steps", 2, "--max_length", 100),
        *("--sft_type", "full", "--shuffle_buffer_size", 5, "--report_to", "none", "--dtype"),
        *("fp32", "--sample_answers", 0, "--learning_rate", 1e-3, *extra),
    )
    ft(*words, "--output_dir", tmp_path / "whole")
    (whole,) = (tmp_path / "whole").glob("*/v0-*")
    part = tmp_path / "part" / "run"
    part.mkdir(parents=True)
    shutil.copytree(whole / "checkpoint-3", part / "checkpoint-3")
    ft(*words, "--output_dir", part, "--resume_from_checkpoint", part / "checkpoint-3")
    weights = [
        (directory / "checkpoint-6" / "model.safetensors").read_bytes()
        for directory in (whole, part)
    ]
    assert weights[0] == weights[1]


def test_streams_need_an_end_and_split_nothing(ft: Ft, model: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", 4)
    common = ("sft", "--model_id_or_path", model, "--dataset", rows, "--streaming", "true")
    assert "--max_steps" in ft(*common, code=2).stderr
    refused = ft(*common, "--max_steps", 2, "--dataset_test_ratio", 0.1, code=2)
    assert "evaluate with --val_dataset" in refused.stderr


def test_validation_sets_keep_their_names(ft: Ft, model: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", 8)
    held = [write(tmp_path / f"{name}.jsonl", 3, word=name) for name in ("ti", "to")]
    ft(
        *("sft", "--model_id_or_path", model, "--dataset", rows, "--val_dataset", *held),
        *("--max_steps", 2, "--eval_steps", 2, "--report_to", "none", "--sample_answers", 0),
        *("--output_dir", tmp_path / "out", "--lora_dropout", 0),
    )
    (row,) = [row for row in log_of(tmp_path / "out") if "eval_ti_loss" in row]
    assert min(row["eval_ti_loss"], row["eval_to_loss"]) <= row["eval_loss"]
    assert max(row["eval_ti_loss"], row["eval_to_loss"]) >= row["eval_loss"]
