"""Modules trained whole, and new tokens, beside every tuner that adapts layers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.loading import load_model
from ft_core.testing import tiny_model
from ft_core.tuners import (
    TUNERS,
    AdaLoraSettings,
    BoftSettings,
    FourierFtSettings,
    Ia3Settings,
    LongLoraSettings,
    VeraSettings,
)

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
SETTINGS: dict[str, Any] = {
    "longlora": LongLoraSettings(rank=2, dropout=0.0),
    "adalora": AdaLoraSettings(init_r=4, target_r=2, total_steps=9, dropout=0.0),
    "ia3": Ia3Settings(),
    "vera": VeraSettings(rank=8),
    "boft": BoftSettings(),
    "fourierft": FourierFtSettings(n_frequency=50),
}


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def learn(model: PreTrainedModel) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
@pytest.mark.parametrize("name", SETTINGS)
def test_embeddings_norms_and_head_are_trained_whole(
    name: str, architecture: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = tiny_model(tmp_path / "base", architecture)
    tuner = TUNERS.get(name)
    settings = replace(SETTINGS[name], modules_to_save=("EMBEDDING", "LN", "lm_head"))
    model = load_model(base, dtype=torch.float32, for_training=True)
    before = logits(model)
    model = tuner.apply(model, settings)
    assert torch.equal(logits(model), before)
    learn(model)
    after = logits(model)
    tied = architecture == "gemma"
    copies = {
        part: next(
            p for n, p in model.named_parameters() if p.requires_grad and f"{part}.modules" in n
        )
        if part == "embed_tokens" or not tied
        else None
        for part in ("embed_tokens", "lm_head")
    }
    if tied:
        head = model.get_base_model().get_output_embeddings()
        assert head.weight is copies["embed_tokens"]
    tuner.save(model, tmp_path)
    with warnings.catch_warnings():
        # It warns of tied embeddings, and of a kernel for GPUs that BOFT does without.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="Failed to load the CUDA extension")
        warnings.filterwarnings("ignore", message="Setting boft_n_butterfly_factor to 1")
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=1e-5)
    resumed = tuner.load(
        load_model(base, dtype=torch.float32, for_training=True), tmp_path, trainable=True
    )
    learn(model)
    learn(resumed)
    assert sum(p.numel() for p in resumed.parameters() if p.requires_grad) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    loaded = tuner.load(load_model(base, dtype=torch.float32), tmp_path)
    merged = tuner.merge(loaded)
    torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_new_tokens_are_trained_or_refused(name: str, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    tuner = TUNERS.get(name)
    model = load_model(base, dtype=torch.float32, for_training=True)
    settings = replace(SETTINGS[name], new_token_ids=(10, 11))
    if name in ("longlora", "adalora"):
        before = model.get_input_embeddings().weight[:13].detach().clone()
        model = tuner.apply(model, settings)
        learn(model)
        tuner.save(model, tmp_path)
        loaded = tuner.load(load_model(base, dtype=torch.float32), tmp_path)
        torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-5)
        merged = tuner.merge(loaded).get_input_embeddings().weight
        assert not torch.equal(merged[10:12], before[10:12])
        assert torch.equal(merged[5:10], before[5:10]) == (name == "adalora")
        return
    with pytest.raises(UsageError, match=f"--sft_type {name} can't train single rows"):
        tuner.apply(model, settings)
    whole = replace(settings, modules_to_save=("EMBEDDING", "lm_head"))
    assert tuner.apply(load_model(base, dtype=torch.float32), whole) is not None


def test_embeddings_are_no_targets_of_tuners_of_linear_layers(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path), dtype=torch.float32)
    with pytest.raises(UsageError, match="is an embedding, and --sft_type vera adapts linear"):
        TUNERS.get("vera").apply(model, VeraSettings(target_modules=("ALL", "EMBEDDING")))
