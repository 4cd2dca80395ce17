"""A tiny model and small files that every end-to-end test works on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_core.testing import tiny_model

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"say {word}"},
            {"role": "assistant", "content": word * 2},
        ]
    }
    for word in ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu")
]

Ft = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a ChatML tokenizer."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny-llama", "llama")


@pytest.fixture(scope="session")
def conversations() -> list[dict[str, Any]]:
    """What the file of rows holds."""
    return ROWS


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten short conversations."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def _ft(
    *words: object, cwd: Path | None = None, stdin: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == code, (
        f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def ft() -> Ft:
    """Run ``ft`` as a process of its own, as a person does."""
    return _ft


@pytest.fixture(scope="session")
def trained(ft: Ft, model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of four steps; returns its run directory."""
    output = tmp_path_factory.mktemp("trained")
    ft(
        *("sft", "--model_id_or_path", model, "--dataset", rows, "--output_dir", output),
        *(
            "--max_steps",
            4,
            "--batch_size",
            2,
            "--gradient_accumulation_steps",
            1,
            "--eval_steps",
            2,
        ),
        *("--dataset_test_ratio", 0.2, "--learning_rate", 1e-2, "--logging_steps", 1),
    )
    return next(output.glob("tiny-llama/v0-*"))


@pytest.fixture(scope="session")
def names_colours(ft: Ft, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny model that sees, trained whole to say which colour the square of a picture has."""
    from ft_core.media.testing import COLOURS, picture, tiny_multimodal

    place = tmp_path_factory.mktemp("colours")
    model = tiny_multimodal(place / "tiny-llava", "llava")
    rows = []
    for size in range(36, 100, 8):
        (place / str(size)).mkdir()
        for colour in COLOURS:
            file = picture(place / str(size) / f"{colour}.png", colour, (size, 136 - size))
            talk = [
                {"role": "user", "content": "<image>What is it?"},
                {"role": "assistant", "content": f"It is {colour}."},
            ]
            rows.append({"messages": talk, "images": [str(file.relative_to(place))]})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "rows.jsonl").write_text(text, encoding="utf-8")
    ft(
        *("sft", "--model_id_or_path", model, "--dataset", "rows.jsonl", "--output_dir", "run"),
        *("--sft_type", "full", "--freeze_vit", "false", "--dtype", "fp32", "--max_steps", 160),
        *("--batch_size", 4, "--gradient_accumulation_steps", 1, "--learning_rate", 3e-3),
        *("--dataset_test_ratio", 0, "--sample_answers", 0, "--add_output_dir_suffix", "false"),
        cwd=place,
    )
    return place / "run" / "checkpoint-160"
