"""Checkpoints that FSDP wrote in parts: put together once, in files that transformers and peft load."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import AutoModelForCausalLM

from ft_core import divided_checkpoints
from ft_core.checkpoints import atomic_directory, open_checkpoint
from ft_core.errors import ModelError
from ft_core.models.loading import load_model
from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS, LoraSettings

pytestmark = [pytest.mark.filterwarnings("ignore:torch.distributed is disabled")]


def divide(checkpoint: Path, state: dict[str, torch.Tensor]) -> Path:
    """Write what accelerate writes of a model that FSDP divided, and take its weights away."""
    folder = checkpoint / "pytorch_model_fsdp_0"
    save({"model": state}, storage_writer=FileSystemWriter(folder), no_dist=True)
    for file in checkpoint.glob("*.safetensors"):
        file.unlink()
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model")


@pytest.mark.parametrize("room", [1 << 30, 30_000], ids=["one file", "several files"])
def test_a_model_is_put_together(
    whole: Path,
    room: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(divided_checkpoints, "SHARD_BYTES", room)
    expected = AutoModelForCausalLM.from_pretrained(whole).state_dict()
    divide(whole, expected)
    assert open_checkpoint(whole).whole
    assert "putting together the parts that FSDP wrote" in capsys.readouterr().err
    assert (whole / "model.safetensors.index.json").exists() == (room < 1 << 30)
    found = AutoModelForCausalLM.from_pretrained(whole).state_dict()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    open_checkpoint(whole)
    assert "putting together" not in capsys.readouterr().err, "it is done once"
    assert not [item for item in whole.iterdir() if item.name.startswith(".")]


@pytest.mark.parametrize("alone", [False, True], ids=["with its model", "alone"])
def test_an_adapter_is_put_together(whole: Path, tmp_path: Path, alone: bool) -> None:
    tuner = TUNERS.get("lora")
    settings = LoraSettings(rank=2, modules_to_save=("lm_head",))
    model = tuner.apply(load_model(whole, dtype=torch.float32), settings)
    with atomic_directory(tmp_path / "run" / "checkpoint-3") as directory:
        tuner.save(model, directory)
    checkpoint = tmp_path / "run" / "checkpoint-3"
    expected = load_file(checkpoint / "adapter_model.safetensors")
    divide(checkpoint, expected if alone else model.state_dict())
    assert open_checkpoint(checkpoint).kind == "lora"
    found = load_file(checkpoint / "adapter_model.safetensors")
    assert set(found) == set(expected)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_parts_that_would_run_code_are_refused(whole: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "harm"),))

    folder = divide(whole, {"a": torch.zeros(2)})
    for protocol in (0, 2, 4):
        (folder / ".metadata").write_bytes(pickle.dumps(Harm(), protocol=protocol))
        with pytest.raises(ModelError, match=r"\.metadata would import .*mkdir"):
            open_checkpoint(whole)
    assert not (tmp_path / "harm").exists()


def test_a_copy_that_is_incomplete_is_named(whole: Path) -> None:
    folder = divide(whole, {"a": torch.zeros(2)})
    (folder / ".metadata").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model_fsdp_0 lacks \.metadata"):
        open_checkpoint(whole)
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"has config\.json but no model\.safetensors"):
        open_checkpoint(whole)
