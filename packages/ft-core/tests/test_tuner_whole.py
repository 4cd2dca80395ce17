"""Modules that LoRA trains whole: names, tied embeddings, data types, plain peft."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from peft.utils.other import ModulesToSaveWrapper
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.loading import load_model
from ft_core.testing import VOCABULARY_SIZE, tiny_model
from ft_core.tuners import TUNERS, LoraSettings

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
LORA = TUNERS.get("lora")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)  # adapters begin with random weights


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


def train(model: PreTrainedModel, steps: int = 8, rate: float = 1e-2) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def settings(*modules: str, **values: object) -> LoraSettings:
    return LoraSettings(rank=2, dropout=0.0, modules_to_save=modules, **values)  # type: ignore[arg-type]


def wrapped(model: PreTrainedModel) -> set[str]:
    base = model.get_base_model()
    return {n for n, m in base.named_modules() if isinstance(m, ModulesToSaveWrapper)}


def plain_peft(base: Path, adapter: Path) -> PeftModel:
    """Load as a person without ft does; peft warns about tied embeddings, and that is all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)


def gpt2(directory: Path) -> Path:
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=100, bos_token_id=1, eos_token_id=1
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


def make(directory: Path, architecture: str) -> Path:
    return (
        gpt2(directory)
        if architecture == "gpt2"
        else tiny_model(directory, architecture.removesuffix("-tied"), **tie(architecture))
    )


def tie(architecture: str) -> dict[str, bool]:
    return {"tie_word_embeddings": True} if architecture.endswith("-tied") else {}


@pytest.mark.parametrize(
    ("architecture", "modules"),
    [
        ("llama", ("EMBEDDING", "LN", "lm_head")),
        ("llama-tied", ("EMBEDDING",)),
        ("llama-tied", ("lm_head", "LN")),
        ("gemma", ("EMBEDDING", "LN")),
        ("qwen3", ("embed_tokens", "q_norm")),
        ("qwen3", ("model.norm",)),
        ("mixtral", ("LN", "lm_head")),
        ("deepseek_v3", ("EMBEDDING", "LN")),
        ("gpt2", ("EMBEDDING", "LN")),
        ("gpt2", ("lm_head",)),
    ],
)
def test_what_is_trained_whole_is_saved_loaded_by_plain_peft_and_merged(
    architecture: str, modules: tuple[str, ...], tmp_path: Path
) -> None:
    directory = make(tmp_path / "model", architecture)
    base = load_model(directory, dtype=torch.float32, for_training=True)
    tied = base.config.tie_word_embeddings
    before = logits(base)
    model = LORA.apply(base, settings(*modules, target_modules=("ALL",)))
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    losses = train(model)
    assert losses[-1] < losses[0] - 0.05
    after = logits(model)
    LORA.save(model, tmp_path / "adapter")

    torch.testing.assert_close(logits(plain_peft(directory, tmp_path / "adapter")), after)
    ours = LORA.load(load_model(directory, dtype=torch.float32), tmp_path / "adapter")
    torch.testing.assert_close(logits(ours), after, rtol=0, atol=1e-5)
    merged = LORA.merge(ours)
    torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-4)
    assert merged.config.tie_word_embeddings == tied
    assert not [name for name, _ in merged.named_modules() if "modules_to_save" in name]
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=1e-4)
    shared = plain.get_input_embeddings().weight is plain.get_output_embeddings().weight
    assert shared == bool(tied)


@pytest.mark.parametrize(
    ("architecture", "modules", "expected"),
    [
        ("llama", ("norm",), {"model.norm"}),
        ("llama", ("EMBEDDING",), {"model.embed_tokens"}),
        ("llama", ("embed_tokens", "EMBEDDING"), {"model.embed_tokens"}),
        ("gemma", ("EMBEDDING",), {"model.embed_tokens", "lm_head"}),
        ("llama", ("layers.1.input_layernorm",), {"model.layers.1.input_layernorm"}),
        (
            "llama",
            ("layers.0.mlp", "layers.0.mlp.up_proj"),
            {"model.layers.0.mlp"},
        ),
    ],
)
def test_exactly_what_is_named_is_trained_whole(
    architecture: str, modules: tuple[str, ...], expected: set[str], tmp_path: Path
) -> None:
    base = load_model(tiny_model(tmp_path, architecture), dtype=torch.float32, for_training=True)
    model = LORA.apply(base, settings(*modules, target_modules=("ALL",)))
    assert wrapped(model) == expected
    inside = {f"base_model.model.{name}." for name in expected}
    for name, parameter in model.named_parameters():
        trained = "lora_" in name or (
            any(name.startswith(prefix) for prefix in inside) and "modules_to_save" in name
        )
        assert parameter.requires_grad == trained, name


def test_all_norms_of_whatever_class_are_trained(tmp_path: Path) -> None:
    base = load_model(tiny_model(tmp_path, "glm4"), dtype=torch.float32, for_training=True)
    expected = {name for name, _ in base.named_modules() if name.endswith("norm")}
    assert len(expected) == 9
    assert wrapped(LORA.apply(base, settings("LN", target_modules=("o_proj",)))) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modules_to_save": ("norn",)}, r"--modules_to_save norn.* norm \(1\).*LN its norms"),
        ({"modules_to_save": ("layers",)}, "--modules_to_save layers"),
        (
            {"modules_to_save": ("q_proj",), "target_modules": ("q_proj",)},
            "q_proj is trained whole",
        ),
        (
            {"modules_to_save": ("self_attn",), "target_regex": ".*0.self_attn.q_proj"},
            "trained whole",
        ),
        ({"modules_to_save": ("EMBEDDING",), "target_modules": ("EMBEDDING",)}, "trained whole"),
        ({"target_modules": ("EMBEDDING",), "new_token_ids": (3,)}, "rows of new tokens"),
        ({"target_modules": ("lm_head",), "new_token_ids": (3,)}, "rows of new tokens"),
    ],
)
def test_what_cannot_work_is_refused(
    values: dict[str, tuple[str, ...]], message: str, tmp_path: Path
) -> None:
    base = load_model(tiny_model(tmp_path), dtype=torch.float32, for_training=True)
    with pytest.raises(UsageError, match=message):
        LORA.apply(base, LoraSettings(**values))  # type: ignore[arg-type]


def test_all_leaves_out_what_is_trained_whole(tmp_path: Path) -> None:
    base = load_model(tiny_model(tmp_path), dtype=torch.float32, for_training=True)
    model = LORA.apply(base, settings("layers.0.mlp", target_modules=("ALL",)))
    adapted = set(model.targeted_module_names)
    assert "model.layers.1.mlp.up_proj" in adapted
    assert not [name for name in adapted if name.startswith("model.layers.0.mlp")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_of_half_precision_models_are_trained_in_float32(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path / "model", "gemma")
    base = load_model(directory, dtype=dtype, for_training=True)
    before = logits(base)
    model = LORA.apply(base, settings("EMBEDDING", "LN", target_modules=("q_proj",)))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0.05)
    train(model, steps=2, rate=1e-5)  # steps that half precision would lose
    saved = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    LORA.save(model, tmp_path / "adapter")
    again = LORA.load(
        load_model(directory, dtype=dtype, for_training=True), tmp_path / "adapter", trainable=True
    )
    found = {n: p for n, p in again.named_parameters() if p.requires_grad}
    assert found.keys() == saved.keys()
    for name, parameter in found.items():
        assert torch.equal(parameter, saved[name]), name

    serving = LORA.load(load_model(directory, dtype=dtype), tmp_path / "adapter")
    assert logits(serving).isfinite().all()
    merged = LORA.merge(again)
    assert {p.dtype for p in merged.parameters()} == {dtype}
    exact = saved["base_model.model.model.embed_tokens.modules_to_save.default.weight"].to(dtype)
    assert torch.equal(merged.get_input_embeddings().weight, exact)
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    assert not merged.get_input_embeddings()._forward_hooks


def test_an_adapter_that_unties_the_head_is_merged_untied(tmp_path: Path) -> None:
    """Others save an embedding without its tied head; that must not change the head."""
    from peft import LoraConfig, get_peft_model

    directory = tiny_model(tmp_path / "model", "gemma")
    base = AutoModelForCausalLM.from_pretrained(directory)
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(base, config)
    train(theirs)
    after = logits(theirs)
    theirs.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    merged = LORA.merge(LORA.load(load_model(directory, dtype=torch.float32), tmp_path / "adapter"))
    torch.testing.assert_close(logits(merged), after, rtol=0, atol=1e-4)
    assert not merged.config.tie_word_embeddings
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_new_tokens_are_trained_alone(tied: bool, tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    new = (VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1)
    base = load_model(directory, dtype=torch.float32, for_training=True)
    frozen = base.get_input_embeddings().weight.detach().clone()
    model = LORA.apply(base, settings(target_modules=("ALL",), new_token_ids=new))
    ids = IDS.clone()
    ids[0, :2] = torch.tensor(new)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    rows = sum(p.numel() for n, p in model.named_parameters() if "trainable_tokens" in n)
    assert rows == 2 * 32 * (1 if tied else 2)
    LORA.save(model, tmp_path / "adapter")
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < frozen.numel() * 4
    merged = LORA.merge(LORA.load(load_model(directory, dtype=torch.float32), tmp_path / "adapter"))
    weight = merged.get_input_embeddings().weight
    assert torch.equal(weight[: new[0]], frozen[: new[0]])
    assert not torch.isclose(weight[list(new)], frozen[list(new)]).any(-1).any()
    assert (merged.get_output_embeddings().weight is weight) == tied
    torch.testing.assert_close(logits(merged), logits(model), rtol=0, atol=1e-4)


def test_a_head_with_a_bias_is_trained_whole_for_new_tokens(tmp_path: Path) -> None:
    config = transformers.PhiConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
        bos_token_id=1,
        eos_token_id=1,
    )
    base = transformers.PhiForCausalLM(config)
    torch.nn.init.normal_(base.lm_head.bias)
    before = logits(base)
    model = LORA.apply(base, settings(target_modules=("ALL",), new_token_ids=(99,)))
    assert wrapped(model) == {"lm_head"}
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    assert train(model)[-1] < 5
    after = logits(model)
    torch.testing.assert_close(logits(LORA.merge(model)), after, rtol=0, atol=1e-4)


def test_broken_numbers_are_not_merged(tmp_path: Path) -> None:
    base = load_model(tiny_model(tmp_path), dtype=torch.float32, for_training=True)
    whole = LORA.apply(
        copy.deepcopy(base), settings("EMBEDDING", "lm_head", target_modules=("q_proj",))
    )
    whole.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(ModelError, match="lm_head can't be merged"):
        LORA.merge(whole)
    rows = LORA.apply(base, settings(target_modules=("q_proj",), new_token_ids=(7,)))
    rows.get_input_embeddings().token_adapter.trainable_tokens_delta["default"].data.fill_(
        torch.nan
    )
    with pytest.raises(ModelError, match="embed_tokens can't be merged"):
        LORA.merge(rows)
