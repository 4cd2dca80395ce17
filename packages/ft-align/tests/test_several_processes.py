"""Anchors belong to a step of all processes: two of them come to what one comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_align.encoding import AnswerEncoder
from ft_core.examples import Example
from ft_core.samples import Sample
from ft_core.templates.template import Template
from ft_core.testing import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("align_processes")]


@pytest.fixture(scope="module")
def rows(
    chatml: Template, labelled: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    samples = AnswerEncoder().encode(labelled, chatml)
    file = tmp_path_factory.mktemp("rows") / "rows.json"
    content = [
        {
            "row": sample.row,
            "ids": list(sample.sequences[0].input_ids),
            "weights": list(sample.sequences[0].loss_weights),
            "values": dict(sample.values),
        }
        for sample in samples
        if isinstance(sample, Sample)
    ]
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("reference"), seed=2)


def step(
    policy: Path, reference: Path, rows: Path, loss_type: str, output: Path, ranks: int
) -> Any:
    worker = Path(__file__).with_name("step_worker.py")
    store = output.with_suffix(f".store{ranks}")
    processes = [
        subprocess.Popen(
            [sys.executable, worker, *map(str, (rank, ranks, store, policy, reference, rows)), loss_type, output],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]  # fmt: skip
    assert [process.wait() for process in processes] == [0] * ranks
    return torch.load(output, weights_only=True)


@pytest.mark.parametrize("loss_type", ["kto", "bco"])
def test_two_processes_are_one(
    directory: Path, reference: Path, rows: Path, tmp_path: Path, loss_type: str
) -> None:
    one, two = (
        step(reference, directory, rows, loss_type, tmp_path / f"{ranks}.pt", ranks)
        for ranks in (1, 2)
    )
    assert one["anchor"] == pytest.approx(two["anchor"], rel=1e-4) != 0
    assert one["state"] == pytest.approx(two["state"], rel=1e-4)
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
