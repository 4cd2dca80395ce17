"""Every tuner on every kind of architecture: begin, learn, save, load (also in a fresh process), merge, count."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ft_core.errors import ModelError
from ft_core.models.loading import load_model
from ft_core.testing import tiny_model
from ft_core.tuners import (
    TUNERS,
    AdaLoraSettings,
    AdapterSettings,
    BoftSettings,
    FourierFtSettings,
    FullSettings,
    Ia3Settings,
    LlamaProSettings,
    LongLoraSettings,
    LoraSettings,
    VeraSettings,
    count_parameters,
)

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]])
ARCHITECTURES = ("llama", "qwen3", "gemma", "mixtral")

Shapes = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Case:
    """A tuner with settings, and how many parameters it trains of matrices (out, in) and the plain model."""

    tuner: str
    settings: Any
    count: Callable[[Shapes, PreTrainedModel], int]
    tolerance: float = 0.0


def whole_layers(model: PreTrainedModel, share: float) -> int:
    """Parameters that are left when the lowest ``share`` of them is frozen."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    below, frozen = 0, 0
    for size in sizes:
        below += size
        frozen = below if below <= share * sum(sizes) else frozen
    return sum(sizes) - frozen


def embeddings_and_norms(model: PreTrainedModel) -> int:
    tied = model.config.tie_word_embeddings
    return sum(
        value.numel()
        for name, value in model.named_parameters()
        if "norm" in name or "embed" in name or (tied and "head" in name)
    )


def rows(model: PreTrainedModel) -> None:
    model(input_ids=IDS, use_cache=False)


CASES = {
    "lora": Case("lora", LoraSettings(rank=4), lambda s, m: sum(4 * (o + i) for o, i in s)),
    "rslora": Case(
        "lora",
        LoraSettings(rank=4, alpha=8, use_rslora=True),
        lambda s, m: sum(4 * (o + i) for o, i in s),
    ),
    "dora": Case(
        "lora",
        LoraSettings(rank=4, use_dora=True),
        lambda s, m: sum(4 * (o + i) + o for o, i in s),
    ),
    "gaussian": Case(
        "lora", LoraSettings(rank=4, init="gaussian"), lambda s, m: sum(4 * (o + i) for o, i in s)
    ),
    **{
        init: Case(
            "lora",
            LoraSettings(rank=4, init=init, run=rows),
            lambda s, m: sum(4 * (o + i) for o, i in s),
            tolerance=2e-5,
        )
        for init in ("pissa", "pissa_niter_4", "olora", "eva", "corda")
    },
    "longlora": Case(
        "longlora",
        LongLoraSettings(rank=4),
        lambda s, m: sum(4 * (o + i) for o, i in s) + embeddings_and_norms(m),
    ),
    "adalora": Case(
        "adalora",
        AdaLoraSettings(init_r=6, target_r=4, total_steps=20),
        lambda s, m: sum(6 * (o + i + 1) for o, i in s),
    ),
    "ia3": Case(
        "ia3",
        Ia3Settings(target_modules=("k_proj", "v_proj"), feedforward_modules=("v_proj",)),
        lambda s, m: 2 * (16 + 32) if m.config.num_key_value_heads == 2 else -1,
    ),
    "vera": Case("vera", VeraSettings(rank=16), lambda s, m: sum(16 + o for o, _ in s)),
    "boft": Case("boft", BoftSettings(), lambda s, m: sum(4 * i + o for o, i in s)),
    "fourierft": Case(
        "fourierft", FourierFtSettings(n_frequency=100), lambda s, m: sum(100 for _ in s)
    ),
    "adapter": Case(
        "adapter", AdapterSettings(length=8), lambda s, m: 2 * 2 * (2 * 32 * 8 + 8 + 32)
    ),
    "llamapro": Case(
        "llamapro",
        LlamaProSettings(num_new_blocks=2),
        lambda s, m: sum(p.numel() for p in m.model.layers.parameters()),
    ),
    "full": Case("full", FullSettings(), lambda s, m: sum(p.numel() for p in m.parameters())),
    "frozen": Case("full", FullSettings(freeze_parameters=0.5), lambda s, m: whole_layers(m, 0.5)),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp(request.param), request.param)


def base(directory: Path, *, for_training: bool = True) -> PreTrainedModel:
    return load_model(directory, dtype=torch.float32, for_training=for_training)


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def learn(model: PreTrainedModel, steps: int = 5) -> list[float]:
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            losses.append(model(input_ids=IDS, labels=IDS, use_cache=False).loss.item())
        model.train()
    return losses


@pytest.mark.parametrize("name", CASES)
def test_begins_learns_saves_loads_and_merges(name: str, directory: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    tuner = TUNERS.get(case.tuner)
    model = base(directory)
    before = logits(model)
    matrices = [
        tuple(module.weight.shape)
        for label, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and label != "lm_head"
    ]
    expected = case.count(matrices, model)  # type: ignore[arg-type]
    model = tuner.apply(model.train(), case.settings)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=case.tolerance)
    assert count_parameters(model).trainable == expected

    losses = learn(model)
    assert losses[-1] < losses[0]
    after = logits(model)
    assert not torch.equal(after, before)
    tuner.save(model, tmp_path)
    loaded = tuner.load(base(directory, for_training=False), tmp_path)
    torch.testing.assert_close(logits(loaded), after, rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    resumed = tuner.load(base(directory), tmp_path, trainable=True)
    torch.testing.assert_close(logits(resumed), after, rtol=0, atol=1e-5)
    if name != "frozen":
        assert trained(resumed) == trained(model)
    if case.tuner == "adapter":
        with pytest.raises(ModelError, match="can't be merged: its bottlenecks"):
            tuner.merge(loaded)
        return
    for item in (loaded, resumed):
        merged = tuner.merge(item)
        assert not any("lora" in key or "adapter" in key for key, _ in merged.named_parameters())
        torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-4)


def trained(model: PreTrainedModel) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.named_parameters() if p.requires_grad}


FRESH = """
import json, sys, warnings
from pathlib import Path
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from ft_core.models.loading import load_checkpoint

base, ids = sys.argv[1], torch.tensor(json.loads(sys.argv[2]))
for directory in map(Path, sys.argv[3:]):
    if (directory / "config.json").is_file():
        model = AutoModelForCausalLM.from_pretrained(directory)
    elif "ft_tuner" in json.loads((directory / "adapter_config.json").read_text()):
        model = load_checkpoint(directory, dtype=torch.float32)
    else:
        plain = AutoModelForCausalLM.from_pretrained(base)
        model = PeftModel.from_pretrained(plain, directory)
    model.eval()
    with torch.no_grad():
        torch.save(model(input_ids=ids, use_cache=False).logits, directory / "logits.pt")
"""


def test_checkpoints_load_in_a_fresh_process_by_plain_libraries(
    directory: Path, tmp_path: Path
) -> None:
    after: dict[str, torch.Tensor] = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        tuner = TUNERS.get(case.tuner)
        model = tuner.apply(base(directory), case.settings)
        learn(model, steps=2)
        (tmp_path / name).mkdir()
        tuner.save(model, tmp_path / name)
        after[name] = logits(model)
    folders = [str(tmp_path / name) for name in CASES]
    subprocess.run(
        [sys.executable, "-c", FRESH, str(directory), json.dumps(IDS.tolist()), *folders],
        check=True,
        capture_output=True,
    )
    for name in CASES:
        found = torch.load(tmp_path / name / "logits.pt", weights_only=True)
        torch.testing.assert_close(
            found, after[name], rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
