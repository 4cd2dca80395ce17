"""Bottlenecks, new blocks and frozen weights against their definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.checkpoints import open_checkpoint
from ft_core.errors import ModelError, UsageError
from ft_core.models.loading import load_checkpoint, load_model
from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS, AdapterSettings, FullSettings, LlamaProSettings
from ft_core.tuners.llamapro.blocks import new_places, positions

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])


def base(directory: Path) -> PreTrainedModel:
    return load_model(directory, dtype=torch.float32, for_training=True)


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_a_bottleneck_follows_attention_and_feed_forward_before_they_are_added(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = base(tiny_model(tmp_path, num_hidden_layers=1))
    model = TUNERS.get("adapter").apply(model, AdapterSettings(length=4))
    layer = model.model.layers[0]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert ".self_attn." in name or ".mlp." in name
            torch.nn.init.normal_(parameter, std=0.3)
    kept: dict[str, torch.Tensor] = {}
    for name in ("input_layernorm", "post_attention_layernorm"):
        layer.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: kept.update(
                {name: inputs[0], f"{name}.out": output}
            )
        )
    end: list[torch.Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: end.append(output))
    logits(model)

    def bottleneck(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        inner = module.get_submodule("ft_adapter")
        down = x @ inner.down.weight.T + inner.down.bias
        return x + torch.nn.functional.gelu(down) @ inner.up.weight.T + inner.up.bias

    mlp = layer.mlp
    x = kept["post_attention_layernorm.out"]
    plain = (torch.nn.functional.silu(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)) @ (
        mlp.down_proj.weight.T
    )
    expected = kept["post_attention_layernorm"] + bottleneck(mlp, plain)
    torch.testing.assert_close(end[0], expected, rtol=0, atol=1e-5)
    assert [
        name
        for name in ("self_attn", "mlp")
        if "ft_adapter" in dict(layer.get_submodule(name).named_children())
    ] == ["self_attn", "mlp"]


def test_a_bottleneck_checkpoint_is_known_and_guarded(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "llama")
    tuner = TUNERS.get("adapter")
    model = tuner.apply(base(directory), AdapterSettings(length=4, act="relu"))
    saved = tmp_path / "saved"
    saved.mkdir()
    tuner.save(model, saved)
    checkpoint = open_checkpoint(saved)
    assert (checkpoint.kind, checkpoint.whole, checkpoint.base) == (
        "adapter",
        False,
        str(directory),
    )
    torch.testing.assert_close(
        logits(load_checkpoint(checkpoint, dtype=torch.float32)), logits(model)
    )
    other = tiny_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(ModelError, match="doesn't fit"):
        tuner.load(base(other), saved)
    config = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps({**config, "ft_tuner": "prompt"}))
    with pytest.raises(ModelError, match="adapter of type prompt; adalora, adapter, boft"):
        open_checkpoint(saved)


@pytest.mark.parametrize(
    ("layers", "new", "groups", "order"),
    [
        (4, 2, None, [0, 1, 1, 2, 3, 3]),
        (4, 4, 2, [0, 1, 0, 1, 2, 3, 2, 3]),
        (5, 2, 2, [0, 1, 1, 2, 3, 4, 4]),
        (3, 3, 1, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_new_blocks_stand_on_top_of_their_group(
    layers: int, new: int, groups: int | None, order: list[int]
) -> None:
    settings = LlamaProSettings(num_new_blocks=new, num_groups=groups)
    assert positions(layers, settings) == order
    assert len(new_places(order)) == new


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "glm4", "phi3"])
def test_new_blocks_change_nothing_at_first_and_generate(architecture: str, tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "base", architecture)
    plain = base(directory)
    before = logits(plain)
    answer = plain.generate(IDS, max_new_tokens=5, do_sample=False)
    tuner = TUNERS.get("llamapro")
    model = tuner.apply(base(directory), LlamaProSettings(num_new_blocks=2))
    assert torch.equal(logits(model), before)
    assert torch.equal(model.generate(IDS, max_new_tokens=5, do_sample=False), answer)
    assert model.config.num_hidden_layers == 4
    configs = {id(m.config) for m in model.modules() if "config" in vars(m)}
    assert configs == {id(model.config)}  # one, so that all blocks attend in the same way
    trained = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"1", "3"}
    saved = tmp_path / "saved"
    saved.mkdir()
    tuner.save(model, saved)
    loaded = AutoModelForCausalLM.from_pretrained(saved)
    assert torch.equal(logits(loaded), before)
    again = tuner.apply(base(saved), LlamaProSettings())
    assert again.config.num_hidden_layers == 4
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    (saved / "sft_args.json").write_text(json.dumps({"sft_type": "llamapro"}))
    assert (open_checkpoint(saved).kind, open_checkpoint(saved).whole) == ("llamapro", True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_new_blocks": 0}, "--llamapro_num_new_blocks 0"),
        ({"num_new_blocks": 3, "num_groups": 2}, "--llamapro_num_groups 2: must divide"),
        ({"new_token_ids": (3,)}, "--new_special_tokens"),
    ],
)
def test_new_blocks_that_can_not_be_shared_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LlamaProSettings(**values)  # type: ignore[arg-type]


def test_models_that_new_blocks_do_not_fit(tmp_path: Path) -> None:
    tuner = TUNERS.get("llamapro")
    few = base(tiny_model(tmp_path / "llama"))
    with pytest.raises(UsageError, match="the model has 2 blocks, too few"):
        tuner.apply(few, LlamaProSettings(num_new_blocks=4))
    mixed = base(tiny_model(tmp_path / "deepseek", "deepseek_v3"))
    with pytest.raises(ModelError, match="builds its layers by their number"):
        tuner.apply(mixed, LlamaProSettings(num_new_blocks=2))
    half = load_model(tmp_path / "llama", dtype=torch.float16)
    with pytest.raises(ModelError, match="can't be fp16"):
        tuner.apply(half, LlamaProSettings(num_new_blocks=2))


def test_freezing_from_the_bottom(tmp_path: Path) -> None:
    model = base(tiny_model(tmp_path))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for share in (0.3, 0.75):
        TUNERS.get("full").apply(model, FullSettings(freeze_parameters=share))
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert frozen == list(sizes)[: len(frozen)]
        below = sum(sizes[name] for name in frozen)
        following = list(sizes.values())[len(frozen)]
        assert below <= share * sum(sizes.values()) < below + following
    TUNERS.get("full").apply(
        model,
        FullSettings(
            freeze_parameters=1, additional_trainable_parameters=("model.layers.1.mlp", "lm_head")
        ),
    )
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n in sizes if n.startswith(("model.layers.1.mlp", "lm_head"))}


def test_freezing_that_can_not_work(tmp_path: Path) -> None:
    model = base(tiny_model(tmp_path))
    tuner = TUNERS.get("full")
    with pytest.raises(UsageError, match="--freeze_parameters 1 leaves nothing"):
        tuner.apply(model, FullSettings(freeze_parameters=1))
    with pytest.raises(UsageError, match="the embedding is frozen"):
        tuner.apply(model, FullSettings(freeze_parameters=0.5, new_token_ids=(5,)))
    with pytest.raises(
        UsageError, match=r"transformer.wte: no parameter's name begins so; .*model.layers"
    ):
        tuner.apply(model, FullSettings(additional_trainable_parameters=("transformer.wte",)))
    with pytest.raises(UsageError, match=r"--freeze_parameters 1\.5"):
        FullSettings(freeze_parameters=1.5)


def test_a_tied_head_is_named_by_either_name(tmp_path: Path) -> None:
    model = base(tiny_model(tmp_path, "gemma"))
    TUNERS.get("full").apply(
        model, FullSettings(freeze_parameters=1, additional_trainable_parameters=("lm_head",))
    )
    assert model.get_input_embeddings().weight.requires_grad
