"""How LoRA's matrices begin, their data types, experts, and the layout of the older toolkit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.checkpoints import open_checkpoint
from ft_core.errors import ModelError, UsageError
from ft_core.models.loading import load_checkpoint, load_model
from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS, LongLoraSettings, LoraSettings
from ft_core.tuners.backends import tuner_for

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
LORA = TUNERS.get("lora")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "llama")


def base(directory: Path, **how: object) -> PreTrainedModel:
    return load_model(directory, **{"dtype": torch.float32, "for_training": True, **how})


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


def learn(model: PreTrainedModel, steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_pissa_trains_the_largest_singular_vectors_and_saves_plain_lora(
    llama: Path, tmp_path: Path
) -> None:
    settings = LoraSettings(rank=3, alpha=6, dropout=0.0, init="pissa", target_modules=("q_proj",))
    model = base(llama)
    weight = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    model = LORA.apply(model, settings)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    u, s, vh = torch.linalg.svd(weight)
    product = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(product, u[:, :3] * s[:3] @ vh[:3], rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.base_layer.weight + product, weight, rtol=0, atol=1e-5)

    learn(model)
    after = logits(model)
    LORA.save(model, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (6, 12, True)
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama), tmp_path / "saved"
    )
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("rslora", [False, True])
def test_training_goes_on_where_it_was(
    init: str, rslora: bool, llama: Path, tmp_path: Path
) -> None:
    settings = LoraSettings(rank=3, alpha=5, dropout=0.0, init=init, use_rslora=rslora)
    model = LORA.apply(base(llama), settings)
    learn(model)
    LORA.save(model, tmp_path / "saved")
    resumed = LORA.load(base(llama), tmp_path / "saved", trainable=True)
    for (name, one), (_, other) in zip(
        model.named_parameters(), resumed.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    learn(model)
    learn(resumed)
    assert torch.equal(logits(model), logits(resumed))
    LORA.save(resumed, tmp_path / "again")
    again = LORA.load(base(llama), tmp_path / "again")
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-5)


def test_eva_begins_with_the_directions_of_the_inputs(llama: Path) -> None:
    seen: list[torch.Tensor] = []
    model = base(llama)
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach()[0])
    )
    with torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    handle.remove()
    settings = LoraSettings(
        rank=4,
        init="eva",
        target_modules=("down_proj",),
        run=lambda inner: inner(input_ids=IDS, use_cache=False),
    )
    model = LORA.apply(model, settings)
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    found = layer.lora_A["default"].weight
    _, _, vh = torch.linalg.svd(seen[0], full_matrices=False)
    torch.testing.assert_close((found @ vh[:4].T).abs(), torch.eye(4), rtol=0, atol=1e-3)
    assert not layer.lora_B["default"].weight.any()
    with pytest.raises(UsageError, match="eva looks at rows"):
        LORA.apply(base(llama), LoraSettings(init="eva"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_data_type_of_adapters(dtype: str, llama: Path, tmp_path: Path) -> None:
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    model = LORA.apply(base(llama), LoraSettings(rank=2, dtype=dtype))  # type: ignore[arg-type]
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {wanted}
    learn(model)
    LORA.save(model, tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert {value.dtype for value in stored.values()} == {wanted}
    resumed = LORA.load(base(llama), tmp_path / "saved", trainable=True)
    assert {p.dtype for p in resumed.parameters() if p.requires_grad} == {wanted}
    torch.testing.assert_close(logits(resumed), logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "tensors"),
    [
        (("experts",), {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}),
        (("gate_up_proj",), {"mlp.experts.gate_up_proj"}),
        (("gate", "q_proj"), {"mlp.gate.weight"}),
    ],
)
def test_experts_and_routers_by_name(
    words: tuple[str, ...], tensors: set[str], tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path / "mixtral", "mixtral")
    model = LORA.apply(base(directory), LoraSettings(rank=2, target_modules=words))
    config = model.active_peft_config
    found = {name.split(".", 3)[3] for name in config.target_parameters}
    assert found == tensors and config.lora_dropout == 0
    learn(model)
    LORA.save(model, tmp_path / "saved")
    after = logits(model)
    loaded = LORA.load(base(directory), tmp_path / "saved")
    torch.testing.assert_close(logits(loaded), after, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(LORA.merge(loaded)), after, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_dora": True}, "--use_dora true can't adapt experts"),
        ({"init": "pissa"}, "--init_lora_weights pissa can't begin adapters of experts"),
    ],
)
def test_experts_refuse_by_name(values: dict[str, object], message: str, tmp_path: Path) -> None:
    directory = tiny_model(tmp_path, "mixtral")
    settings = LoraSettings(target_modules=("experts",), **values)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        LORA.apply(base(directory), settings)


@pytest.mark.parametrize("name", ["lora", "longlora"])
@pytest.mark.parametrize("safe", [True, False])
def test_the_older_layout(name: str, safe: bool, llama: Path, tmp_path: Path) -> None:
    tuner = tuner_for(name, "swift")
    kind = LoraSettings if name == "lora" else LongLoraSettings
    model = tuner.apply(base(llama, name=str(llama)), kind(rank=2, dropout=0.0))
    learn(model)
    saved = tmp_path / "saved"
    saved.mkdir()
    tuner.save(model, saved, safe_serialization=safe)
    assert not (saved / "adapter_config.json").exists()
    config = json.loads((saved / "default" / "adapter_config.json").read_text())
    assert config["swift_type"] == name.upper()
    if safe:
        names = load_file(saved / "default" / "adapter_model.safetensors")
        assert "model.layers.0.self_attn.q_proj.lora_A.default.weight" in names
    checkpoint = open_checkpoint(saved)
    assert (checkpoint.kind, checkpoint.base) == (name, str(llama))
    loaded = load_checkpoint(checkpoint, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-5)


def test_the_older_layout_with_more_than_an_adapter_is_refused(llama: Path, tmp_path: Path) -> None:
    tuner = tuner_for("lora", "swift")
    tuner.save(tuner.apply(base(llama), LoraSettings()), tmp_path)
    (tmp_path / "extra_states").mkdir()
    with pytest.raises(ModelError, match="extra_states holds weights beside"):
        LORA.load(base(llama), tmp_path)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("loftq", "loftq puts quantized values"),
        ("pissa_niter_0", "pissa_niter_0: allowed are true"),
        ("random", "random: allowed are true, false, gaussian"),
    ],
)
def test_unknown_beginnings_are_refused(init: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LoraSettings(init=init)
