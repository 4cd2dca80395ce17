"""Merging tensor by tensor gives what merging the whole model gives, and says where it can't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ft_core.errors import ModelError
from ft_core.models.loading import load_model
from ft_core.testing import tiny_model
from ft_core.tuners import (
    TUNERS,
    AdaLoraSettings,
    BoftSettings,
    FourierFtSettings,
    Ia3Settings,
    LoraSettings,
    VeraSettings,
)
from ft_quant import merge_checkpoint

SETTINGS: dict[str, Any] = {
    "lora": LoraSettings(rank=4, target_modules=("ALL",)),
    "dora": LoraSettings(rank=4, target_modules=("ALL",), use_dora=True),
    "norms": LoraSettings(rank=4, target_modules=("q_proj",), modules_to_save=("LN", "lm_head")),
    "adalora": AdaLoraSettings(target_modules=("ALL",)),
    "ia3": Ia3Settings(target_modules=("ALL",)),
    "vera": VeraSettings(target_modules=("q_proj", "v_proj")),
    "boft": BoftSettings(target_modules=("q_proj", "v_proj")),
    "fourierft": FourierFtSettings(target_modules=("q_proj", "v_proj"), n_frequency=100),
}


def trained(
    root: Path, settings: Any, kind: str, architecture: str = "llama", **config: Any
) -> Path:
    """Write a base in several shards and the checkpoint of an adapter whose numbers are far from zero."""
    base = tiny_model(root / "base", architecture, initializer_range=0.2, **config)
    model = load_model(base, dtype=torch.float32, for_training=True)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="80KB")
    tuner = TUNERS.get(kind)
    model = tuner.apply(load_model(base, dtype=torch.float32, for_training=True), settings)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(0.05 * noise.to(parameter.dtype))
    checkpoint = root / "checkpoint-1"
    checkpoint.mkdir()
    tuner.save(model, checkpoint)
    return checkpoint


def merge(checkpoint: Path, target: Path, *, by_shards: bool) -> dict[str, torch.Tensor]:
    """Merge; what is written as one pickled file is merged in memory."""
    report = merge_checkpoint(
        checkpoint, target, safe_serialization=by_shards, report=lambda text: None
    )
    if not by_shards:
        found: dict[str, torch.Tensor] = torch.load(report.path / "pytorch_model.bin")
        return found
    files = list(report.path.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def is_streamed(directory: Path) -> bool:
    """Whether it has the shards of the base: a model this small that is saved whole has one."""
    return len(list(directory.glob("*.safetensors"))) > 1


@pytest.mark.parametrize("name", SETTINGS)
def test_it_equals_the_whole_models_merge(tmp_path: Path, name: str) -> None:
    kind = "lora" if name in ("dora", "norms") else name
    checkpoint = trained(tmp_path, SETTINGS[name], kind)
    streamed = merge(checkpoint, tmp_path / "shards", by_shards=True)
    whole = merge(checkpoint, tmp_path / "whole", by_shards=False)
    assert is_streamed(tmp_path / "shards")
    plain = {
        key: value
        for file in (tmp_path / "base").glob("*.safetensors")
        for key, value in load_file(file).items()
    }
    assert streamed.keys() == whole.keys() == plain.keys()
    assert any(not torch.equal(streamed[key], plain[key]) for key in plain)
    for key, value in whole.items():
        torch.testing.assert_close(streamed[key], value, atol=1e-6, rtol=1e-5)
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(plain)


def test_plain_transformers_loads_it(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, SETTINGS["lora"], "lora", "qwen2", tie_word_embeddings=True)
    report = merge_checkpoint(checkpoint, dtype="bf16", report=lambda text: None)
    assert is_streamed(report.path)
    model = transformers.AutoModelForCausalLM.from_pretrained(report.path, dtype="auto")
    assert model.dtype == torch.bfloat16 and report.dtype == "bf16"
    assert report.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    ("settings", "architecture", "config"),
    [
        (
            LoraSettings(target_modules=("q_proj", "EMBEDDING")),
            "llama",
            {"tie_word_embeddings": True},
        ),
        (LoraSettings(target_modules=("q_proj",), bias="all"), "qwen2", {}),
        (LoraSettings(target_modules=("q_proj",), new_token_ids=(380,)), "llama", {}),
        (LoraSettings(target_modules=("q_proj",)), "mixtral", {}),
    ],
)
def test_what_reaches_beyond_a_module_is_merged_whole(
    tmp_path: Path, settings: LoraSettings, architecture: str, config: dict[str, Any]
) -> None:
    checkpoint = trained(tmp_path, settings, "lora", architecture, **config)
    merge(checkpoint, tmp_path / "merged", by_shards=True)
    assert not is_streamed(tmp_path / "merged")


def test_numbers_that_arent_finite_are_refused(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, SETTINGS["lora"], "lora")
    file = checkpoint / "adapter_model.safetensors"
    content = load_file(file)
    content[next(iter(content))][:] = float("nan")
    save_file(content, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="can't be merged"):
        merge(checkpoint, tmp_path / "shards", by_shards=True)
    assert not (tmp_path / "shards").exists()
