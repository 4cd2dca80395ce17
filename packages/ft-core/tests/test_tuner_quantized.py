"""Tuners on quantized weights: all that are allowed train and load, all others are refused before loading."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.loading import load_model
from ft_core.models.quantization import METHODS, Quantization, settle_quantization
from ft_core.testing import tiny_model
from ft_core.tuner import SftType
from ft_core.tuners import (
    TUNERS,
    AdaLoraSettings,
    AdapterSettings,
    BoftSettings,
    FourierFtSettings,
    Ia3Settings,
    LongLoraSettings,
    LoraSettings,
    VeraSettings,
)

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
SETTINGS: dict[str, Any] = {
    "lora": LoraSettings(rank=4, dropout=0.0, use_dora=True),
    "longlora": LongLoraSettings(rank=4, dropout=0.0),
    "adapter": AdapterSettings(length=8),
    "adalora": AdaLoraSettings(total_steps=10, dropout=0.0),
    "ia3": Ia3Settings(),
    "vera": VeraSettings(rank=8),
    "boft": BoftSettings(),
    "fourierft": FourierFtSettings(n_frequency=100),
}
WANTED = {"bnb": Quantization("bnb", 4), "hqq": Quantization("hqq", 4)}
PAIRS = [(method, name) for method in WANTED for name in METHODS[method].sft_types]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("model"),
        hidden_size=64,
        intermediate_size=128,
        num_key_value_heads=4,
    )


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_what_is_allowed_trains_and_loads(
    method: str, name: str, directory: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec(METHODS[method].module) is None:  # type: ignore[index]
        pytest.skip(f"needs {METHODS[method].package}")  # type: ignore[index]
    torch.manual_seed(0)
    how: dict[str, Any] = {"dtype": torch.float32, "quantization": WANTED[method]}
    tuner = TUNERS.get(name)
    model = tuner.apply(load_model(directory, for_training=True, **how), SETTINGS[name])
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    tuner.save(model, tmp_path)
    loaded = tuner.load(load_model(directory, **how), tmp_path)
    # bnb packs weights for answering, and rounds once more.
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_everything_else_is_refused_before_loading(
    method: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    info = METHODS[method]  # type: ignore[index]
    for name in get_args(SftType):
        wanted = Quantization(method, info.bits[-1])  # type: ignore[arg-type]
        where = info.devices[-1]
        if name in info.sft_types:
            assert settle_quantization(wanted, directory, where, sft_type=name)[0] is wanted
            continue
        with pytest.raises(UsageError, match=f"--sft_type {name} can't train weights quantized"):
            settle_quantization(wanted, directory, where, sft_type=name)
