"""Tuners on all tiny architectures: what they train, save, load and merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.loading import load_model
from ft_core.testing import ARCHITECTURES, tiny_model
from ft_core.tuners import TUNERS, FullSettings, LoraSettings, ParameterCount

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "llama")


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)  # adapters begin with random weights


def train(model: PreTrainedModel, steps: int = 6, rate: float = 1e-2) -> list[float]:
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("settings", "leaves", "layers"),
    [
        (LoraSettings(target_modules=("ALL",)), {"q_a_proj", "q_b_proj", "o_proj"}, {"0", "1"}),
        (LoraSettings(target_regex=r".*layers\.1\.self_attn\.o_proj"), {"o_proj"}, {"1"}),
        (LoraSettings(target_modules=("gate_proj", "up_proj", "down_proj")), {"experts"}, {"1"}),
    ],
)
def test_experts_are_adapted_only_when_they_are_named(
    settings: LoraSettings, leaves: set[str], layers: set[str], tmp_path: Path
) -> None:
    base = load_model(tiny_model(tmp_path, "deepseek_v3"), dtype=torch.float32)
    model = TUNERS.get("lora").apply(base, settings)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name.partition(".layers.")[2].partition(".")[0] for name in trained} == layers
    parts = {part for name in trained for part in name.split(".")}
    assert leaves <= parts
    assert ("experts" in parts) == ("experts" in leaves)
    assert "shared_experts" not in parts


def test_lora_learns_saves_loads_in_plain_peft_and_merges(directory: Path, tmp_path: Path) -> None:
    tuner = TUNERS.get("lora")
    base = load_model(directory, dtype=torch.float32, for_training=True)
    before = logits(base)
    model = tuner.apply(base, LoraSettings(rank=4, dropout=0.0, target_modules=("ALL",)))
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)

    losses = train(model)
    assert losses[-1] < losses[0] - 0.05
    after = logits(model)
    assert not torch.allclose(after, before, atol=1e-3)

    tuner.save(model, tmp_path / "adapter")
    fresh = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(directory), tmp_path / "adapter"
    )
    torch.testing.assert_close(logits(fresh), after, rtol=0, atol=1e-5)
    ours = tuner.load(load_model(directory, dtype=torch.float32), tmp_path / "adapter")
    torch.testing.assert_close(logits(ours), after, rtol=0, atol=1e-5)

    merged = tuner.merge(ours)
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=1e-4)


def test_lora_trains_only_the_adapter(llama: Path) -> None:
    model = load_model(llama, dtype=torch.float32, for_training=True)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = TUNERS.get("lora").apply(model, LoraSettings(rank=4))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    train(adapted, steps=2)
    for name, value in adapted.unload().state_dict().items():
        assert torch.equal(value, base[name]), name


def test_full_learns_saves_and_loads_in_plain_transformers(directory: Path, tmp_path: Path) -> None:
    tuner = TUNERS.get("full")
    model = tuner.apply(
        load_model(directory, dtype=torch.float32, for_training=True), FullSettings()
    )
    assert all(parameter.requires_grad for parameter in model.parameters())
    losses = train(model, rate=3e-3)
    assert losses[-1] < losses[0] - 0.05
    after = logits(model)
    tuner.save(model, tmp_path)
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path)), after, rtol=0, atol=1e-5
    )
    restored = tuner.load(load_model(directory, dtype=torch.float32), tmp_path)
    torch.testing.assert_close(logits(restored), after, rtol=0, atol=1e-5)
    assert tuner.merge(restored) is restored


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_bin_weights(kind: str, llama: Path, tmp_path: Path) -> None:
    settings = LoraSettings(rank=2) if kind == "lora" else FullSettings()
    tuner = TUNERS.get(kind)
    model = tuner.apply(load_model(llama, dtype=torch.float32, for_training=True), settings)
    train(model, steps=2)
    tuner.save(model, tmp_path / "out", safe_serialization=False)
    assert not list((tmp_path / "out").glob("*.safetensors"))
    loaded = tuner.load(load_model(llama, dtype=torch.float32), tmp_path / "out")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-5)


def test_adapter_names_its_base_so_that_peft_finds_it(llama: Path, tmp_path: Path) -> None:
    for name, expected in ((None, str(llama)), ("owner/model", "owner/model")):
        model = load_model(llama, dtype=torch.float32, name=name)
        TUNERS.get("lora").save(
            TUNERS.get("lora").apply(model, LoraSettings()), tmp_path / "adapter"
        )
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == expected
        assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 32, 0.05)


def test_bf16_base_keeps_the_adapter_in_float32_and_merges_with_one_rounding(
    llama: Path, tmp_path: Path
) -> None:
    tuner = TUNERS.get("lora")
    model = tuner.apply(
        load_model(llama, dtype=torch.bfloat16, for_training=True),
        LoraSettings(rank=4, target_modules=("q_proj",)),
    )
    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    train(model)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer.base_layer.weight.float() + (b @ a) * (32 / 4)
    merged = tuner.merge(model)
    weight = merged.model.layers[0].self_attn.q_proj.weight
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, exact.to(torch.bfloat16))


def test_embedding_of_a_tied_model_is_adapted_saved_and_merged(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "gemma", "gemma")
    tuner = TUNERS.get("lora")
    settings = LoraSettings(rank=4, dropout=0.0, target_modules=("ALL", "EMBEDDING"))
    model = tuner.apply(load_model(directory, dtype=torch.float32, for_training=True), settings)
    assert any("embed_tokens.lora_embedding_A" in name for name, _ in model.named_parameters())
    train(model)
    after = logits(model)
    tuner.save(model, tmp_path / "adapter")
    loaded = tuner.load(load_model(directory, dtype=torch.float32), tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), after, rtol=0, atol=1e-5)
    merged = tuner.merge(loaded)
    torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=1e-4)


def test_biases_are_trained_saved_and_merged(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "qwen2", "qwen2")
    tuner = TUNERS.get("lora")
    model = tuner.apply(
        load_model(directory, dtype=torch.float32, for_training=True),
        LoraSettings(rank=2, dropout=0.0, bias="all"),
    )
    assert any(n.endswith(".bias") for n, p in model.named_parameters() if p.requires_grad)
    train(model)
    after = logits(model)
    tuner.save(model, tmp_path / "adapter")
    loaded = tuner.load(load_model(directory, dtype=torch.float32), tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), after, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(tuner.merge(loaded)), after, rtol=0, atol=1e-4)


def test_loading_for_more_training_resumes_where_it_was(llama: Path, tmp_path: Path) -> None:
    tuner = TUNERS.get("lora")
    model = tuner.apply(
        load_model(llama, dtype=torch.float32, for_training=True), LoraSettings(dropout=0.0)
    )
    train(model, steps=3)
    tuner.save(model, tmp_path)
    resumed = tuner.load(
        load_model(llama, dtype=torch.float32, for_training=True), tmp_path, trainable=True
    )
    trained = {n for n, p in resumed.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in model.named_parameters() if p.requires_grad}
    assert train(resumed, steps=1)[0] == pytest.approx(train(model, steps=1)[0], abs=1e-5)


def test_an_adapter_of_another_model_is_refused(llama: Path, tmp_path: Path) -> None:
    tuner = TUNERS.get("lora")
    tuner.save(
        tuner.apply(load_model(llama, dtype=torch.float32), LoraSettings(target_modules=("ALL",))),
        tmp_path / "adapter",
    )
    wider = tiny_model(tmp_path / "wider", hidden_size=64)
    with pytest.raises(ModelError, match="doesn't fit"):
        tuner.load(load_model(wider, dtype=torch.float32), tmp_path / "adapter")
    deeper = tiny_model(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(ModelError, match="doesn't fit"):
        tuner.load(load_model(deeper, dtype=torch.float32), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(ModelError, match="damaged"):
        tuner.load(load_model(llama, dtype=torch.float32), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"rank": -1}, "--lora_rank -1"),
        ({"rank": 0}, "--lora_rank 0"),
        ({"alpha": 0}, "--lora_alpha 0"),
        ({"dropout": 1.0}, "--lora_dropout 1.0"),
        ({"dropout": -0.1}, "--lora_dropout -0.1"),
        ({"bias": "some"}, "--lora_bias_trainable some"),
    ],
)
def test_settings_that_cannot_work_name_their_flag(values: dict[str, object], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        LoraSettings(**values)  # type: ignore[arg-type]


def test_full_tuning_refuses_fp16(llama: Path) -> None:
    model = load_model(llama, dtype=torch.float16)
    with pytest.raises(ModelError, match="fp16"):
        TUNERS.get("full").apply(model, FullSettings())


def test_an_adapter_with_broken_numbers_is_not_merged(llama: Path) -> None:
    model = TUNERS.get("lora").apply(load_model(llama, dtype=torch.float32), LoraSettings())
    model.base_model.model.model.layers[1].self_attn.q_proj.lora_B["default"].weight.data.fill_(
        torch.nan
    )
    with pytest.raises(ModelError, match="can't be merged"):
        TUNERS.get("lora").merge(model)


def test_counts_read_well() -> None:
    assert str(ParameterCount(5, 1000)) == "5 of 1,000 parameters are trained (0.5000 %)"
    assert TUNERS.names()[:2] == ["lora", "full"]
    with pytest.raises(UsageError, match="Did you mean lora"):
        TUNERS.get("lorra")
