"""A sequence over several ranks: the same loss and gradients as on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_core.errors import UsageError
from ft_core.models.loading import load_model
from ft_core.samples import Tokens
from ft_core.sequences import join
from ft_core.sequences.parallel import SequenceGroup, check_heads, split
from ft_core.testing import tiny_model

WORKER = Path(__file__).with_name("sequence_worker.py")
ARCHITECTURES = ("llama", "qwen3", "gemma2", "gemma3_text", "mixtral", "deepseek_v3", "phi3")


def on_ranks(size: int, ranks: int, result: Path, *directories: Path) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc_per_node", str(ranks), str(WORKER), str(size), str(result)),
        *map(str, directories),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text())


@pytest.mark.slow
def test_two_ranks_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    directories = [tiny_model(tmp_path / name, name) for name in ARCHITECTURES]
    wide = tiny_model(tmp_path / "one-key-head", "llama", num_key_value_heads=1)
    odd = tiny_model(
        tmp_path / "odd", "llama", num_attention_heads=3, num_key_value_heads=3, hidden_size=48
    )
    found = on_ranks(2, 2, tmp_path / "found.json", *directories, wide, odd)
    assert "UsageError" in found.pop("odd")["error"]
    for name, numbers in found.items():
        assert "error" not in numbers, (name, numbers)
        assert numbers["parts"] == pytest.approx(numbers["whole"], rel=1e-5), name
        assert numbers["unsplit"] == pytest.approx(numbers["whole"], rel=1e-5), name
        assert numbers["gradients"] < 1e-4, (name, numbers)
    assert len(found) == len(ARCHITECTURES) + 1


def test_heads_that_cannot_be_shared_are_refused(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path), dtype=torch.float32)
    check_heads(model, 2)
    check_heads(model, 4)  # each of two key heads serves two ranks
    with pytest.raises(UsageError, match=r"--sequence_parallel_size 3: .* 4 heads and 2 .* 2, 4"):
        check_heads(model, 3)


def test_slices_hold_every_token_and_target_once() -> None:
    documents = [Tokens([5, 6, 7], [0, 1, 1]), Tokens([8, 9], [0, 0.5])]
    batch = join(documents)
    parts = [split(batch, SequenceGroup(None, rank, 4)) for rank in range(4)]  # type: ignore[arg-type]
    ids = torch.cat([part["input_ids"] for part in parts], dim=1)[0].tolist()
    assert ids == [5, 6, 7, 8, 9, 0, 0, 0]
    positions = torch.cat([part["position_ids"] for part in parts], dim=1)[0].tolist()
    assert positions == [0, 1, 2, 0, 1, 0, 1, 2]
    assert torch.equal(torch.cat([part["labels"] for part in parts]), batch["labels"])
    assert [len(part["targets"]) for part in parts] == [2, 1, 0, 0]
    assert parts[1]["targets"].tolist() == [1]  # the token before the label stands there
    assert parts[0]["attention"]["document_starts"].tolist() == [0, 3, 5]
