"""Settings of DeepSpeed and FSDP, and a model that is divided over processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ft_core.checkpoints import open_checkpoint
from ft_core.errors import UsageError
from ft_core.testing import tiny_model
from ft_train.distributed.deepspeed_config import PRESETS, for_device, read_deepspeed, stage_of
from ft_train.distributed.fsdp_settings import FsdpSettings, read_fsdp

WORKER = Path(__file__).with_name("fsdp_worker.py")


def divided(ranks: int, directory: Path, out: Path, kind: str, words: str) -> dict[str, Any]:
    out.mkdir()
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc_per_node", str(ranks), str(WORKER), str(directory), str(out), kind, words),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [("full", "full_shard"), ("lora", "shard_grad_op")])
def test_a_divided_model_learns_saves_and_continues_like_a_whole_one(
    kind: str, words: str, tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path / "model")
    one = divided(1, directory, tmp_path / "one", kind, words)
    two = divided(2, directory, tmp_path / "two", kind, words)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["losses"][-1] < two["losses"][0] - 0.05
    assert two["continued"] == two["more"]  # to the bit
    parts = tmp_path / "two" / "parts"
    for config in (tmp_path / "two").glob("*config.json"):
        shutil.copy(config, parts)
    assert open_checkpoint(parts).kind == kind
    (written,), (whole,) = (item.glob("*.safetensors") for item in (parts, tmp_path / "two"))
    expected, found = load_file(whole), load_file(written)
    assert set(found) == set(expected)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    if kind == "full":
        plain = [
            AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
            for name in ("one", "two")
        ]
        for name, weight in plain[0].items():
            torch.testing.assert_close(plain[1][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_leave_to_the_flags_what_flags_say(name: str) -> None:
    config = read_deepspeed(name)
    for key in ("train_batch_size", "gradient_clipping", "gradient_accumulation_steps"):
        assert config[key] == "auto"
    assert "optimizer" not in config and "scheduler" not in config
    assert stage_of(config) == int(next(c for c in name if c.isdigit()))
    assert ("offload_optimizer" in config["zero_optimization"]) == name.endswith("offload")
    plain = for_device(config, "cpu")["zero_optimization"]
    assert not plain["overlap_comm"]
    assert not plain.get("offload_optimizer", {}).get("pin_memory")
    config["zero_optimization"]["stage"] = 9  # a copy: presets don't change
    assert stage_of(read_deepspeed(name)) != 9


def test_a_configuration_comes_from_names_files_and_json(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"zero_optimization": {"stage": 1}}', encoding="utf-8")
    for value in (str(file), file.read_text(), json.loads(file.read_text())):
        assert stage_of(read_deepspeed(value)) == 1
    assert (
        read_deepspeed("zero3")
        == read_deepspeed("default-zero3")
        == read_deepspeed("default_zero3")
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("zero4", "presets are .*Did you mean"),
        ("{", "can't be read as JSON"),
        ("{}x", "can't be read as JSON"),
    ],
)
def test_what_is_no_configuration(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"--deepspeed .*{message}"):
        read_deepspeed(value)


def test_words_of_fsdp() -> None:
    assert read_fsdp("", None) is None
    assert read_fsdp("full_shard auto_wrap", None) == FsdpSettings()
    assert read_fsdp("true", None) == FsdpSettings()
    assert read_fsdp("shard_grad_op,offload", None) == FsdpSettings(
        reshard_after_forward=False, offload=True
    )
    assert read_fsdp("hybrid_shard", None) == FsdpSettings(within_nodes=True)
    config = {
        "fsdp_version": 2,
        "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
        "fsdp_backward_prefetch": "backward_pre",
        "reshard_after_forward": False,
    }
    assert read_fsdp("full_shard", json.dumps(config)) == FsdpSettings(
        reshard_after_forward=False, layers=("LlamaDecoderLayer",), ignored=("backward_prefetch",)
    )


@pytest.mark.parametrize(
    ("words", "config", "message"),
    [
        ("no_shard", None, "leave it out"),
        ("full_shart", None, "Did you mean full_shard"),
        ("offload", None, "exactly one"),
        ("full_shard shard_grad_op", None, "exactly one"),
        ("full_shard", {"fsdp_version": 1}, "version 1"),
        ("full_shard", {"reshard": True}, "reshard is unknown"),
        ("full_shard", "missing.json", "no such file"),
        ("full_shard", "{", "can't be read"),
    ],
)
def test_words_that_mean_nothing(words: str, config: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"--fsdp.*{message}"):
        read_fsdp(words, config)
