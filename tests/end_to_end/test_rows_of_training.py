"""Rows from the command line to training: encoded ahead, packed, grouped, streamed."""

from __future__ import annotations

import json
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
