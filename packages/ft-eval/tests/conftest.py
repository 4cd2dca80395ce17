"""Tiny engines, files of questions, and small servers for the tests of this package."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ft_eval.testing import QUESTIONS


@pytest.fixture
def choices(tmp_path: Path) -> Path:
    """Write multiple-choice questions in C-Eval's layout and return the directory."""
    directory = tmp_path / "choices"
    directory.mkdir()
    for name, rows in (("val", QUESTIONS), ("dev", QUESTIONS[:1])):
        with (directory / f"default_{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "question", "A", "B", "C", "D", "answer", "explanation"])
            for number, (question, texts, answer) in enumerate(rows):
                writer.writerow([number, question, *texts, answer, ""])
    return directory


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a custom_eval_config of entries."""

    def write(*entries: Mapping[str, Any]) -> Path:
        file = tmp_path / "config.json"
        file.write_text(json.dumps(entries), encoding="utf-8")
        return file

    return write


@pytest.fixture
def wait() -> Iterator[Callable[[Any], Any]]:
    """Run coroutines in one loop."""
    with asyncio.Runner() as runner:
        yield runner.run
