"""LoRA layers that compute in one operation what peft computes in several: same numbers, same gradients."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as PeftLinear
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS, LoraSettings
from ft_core.tuners.lora import low_rank
from ft_core.tuners.lora.lean import LeanLinear, SharedMasks, draw_mask
from ft_core.tuners.lora.low_rank import low_rank_update

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "phi3", "mistral", "mixtral")


@pytest.fixture(params=["wide", "tall"])
def shape(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of CPUs, and those of other devices."""
    if request.param == "tall":
        monkeypatch.setattr(low_rank, "_WideUpdate", low_rank._TallUpdate)


def leaves(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.usefixtures("shape")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_peft(architecture: str, tmp_path: Path) -> None:
    directory = tiny_model(tmp_path, architecture)
    plain = AutoModelForCausalLM.from_pretrained(directory)
    settings = LoraSettings(rank=4, dropout=0.0, target_modules=("ALL",))
    ours = TUNERS.get("lora").apply(copy.deepcopy(plain), settings)
    config = copy.deepcopy(ours.peft_config["default"])
    config._custom_modules = None
    theirs = get_peft_model(plain, config)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.05)
    theirs.load_state_dict(ours.state_dict())
    assert any(isinstance(module, LeanLinear) for module in ours.modules())
    assert not any(isinstance(module, LeanLinear) for module in theirs.modules())

    ids = torch.randint(3, 90, (2, 9))
    losses = []
    for model in (ours, theirs):
        loss = model.train()(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    expected = leaves(theirs)
    assert expected
    for name, value in leaves(ours).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("shape")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_those_of_finite_differences(dropout: float) -> None:
    torch.manual_seed(0)
    shapes = ((2, 3, 5), (2, 3, 4), (2, 4), (5, 2))
    values = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    keep = draw_mask(values[1], dropout).keep if dropout else None

    def run(result: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return low_rank_update(result.clone(), *others, 0.7, keep)

    assert torch.autograd.gradcheck(run, values)


def test_dropped_values_are_as_many_as_asked_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    mask = draw_mask(torch.empty(7, 143, 999), 0.05).keep
    assert mask.shape == (1001, 999)
    assert mask.float().mean().item() == pytest.approx(0.95, abs=1e-3)
    assert set(mask.unique().tolist()) == {0, 1}
    # Neither rows nor columns hang together.
    assert (mask[1:] * mask[:-1]).float().mean().item() == pytest.approx(0.95**2, abs=1e-3)
    assert (mask[:, 1:] * mask[:, :-1]).float().mean().item() == pytest.approx(0.95**2, abs=1e-3)

    x, a, b = torch.randn(4, 64), torch.randn(2, 64), torch.randn(8, 2)
    masks = [draw_mask(x, 0.5) for _ in range(4000)]
    draws = [
        low_rank_update(torch.zeros(4, 8), x, a, b, 2.0 / mask.probability, mask.keep)
        for mask in masks
    ]
    torch.testing.assert_close(torch.stack(draws).mean(0), 2.0 * x @ a.T @ b.T, atol=1.6, rtol=0)


def layer(dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> LeanLinear:
    base = torch.nn.Linear(6, 4, bias=True, dtype=dtype)
    config = LoraConfig(r=2, lora_alpha=4, lora_dropout=dropout)
    made = LeanLinear(base.requires_grad_(False), "default", config=config, r=2, lora_alpha=4)
    torch.nn.init.normal_(made.lora_B["default"].weight)
    return made.train()


def test_layers_that_read_the_same_tensor_share_its_mask() -> None:
    masks, x = SharedMasks(), torch.randn(50, 6)
    queries, keys = layer(dropout=0.4), layer(dropout=0.4)
    first = masks.mask_for(queries, x, 0.4)
    assert masks.mask_for(keys, x, 0.4) is first
    again = masks.mask_for(queries, x, 0.4)
    assert not torch.equal(again.keep, first.keep), "each pass has a mask of its own"
    assert masks.mask_for(keys, x, 0.2) is not again, "another rate is another mask"
    other = x.clone()
    assert masks.mask_for(keys, other, 0.2).keep.shape == (50, 6)
    seen = masks.mask_for(queries, other, 0.2)
    del other
    assert masks.mask_for(layer(), x.clone(), 0.2) is not seen, (
        "tensors are told apart, not addresses"
    )


def test_nothing_is_dropped_in_evaluation() -> None:
    made = layer(dropout=0.5).eval()
    x = torch.randn(3, 6)
    torch.testing.assert_close(made(x), PeftLinear.forward(made, x))


def test_half_precision_weights_keep_float32_adapters() -> None:
    made = layer(torch.bfloat16)
    made.lora_A.float()
    made.lora_B.float()
    x = torch.randn(3, 6, dtype=torch.bfloat16)
    output = made(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, PeftLinear.forward(made, x), rtol=2e-2, atol=2e-2)
    output.float().sum().backward()
    assert made.lora_A["default"].weight.grad.dtype == torch.float32


def test_autocast_is_obeyed() -> None:
    made = layer()
    x = torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output = made(x)
        expected = PeftLinear.forward(made, x)
    assert output.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=5e-2, atol=5e-2)


def test_recomputed_activations_drop_the_same_values() -> None:
    made = layer(dropout=0.4)
    x = torch.randn(3, 6, requires_grad=True)
    gradients = []
    for recompute in (False, True):
        x.grad = None
        torch.manual_seed(5)
        output = checkpoint(made, x, use_reentrant=False) if recompute else made(x)
        output.pow(2).sum().backward()
        gradients.append(x.grad.clone())
    torch.testing.assert_close(*gradients)


def test_other_uses_are_left_to_peft(tmp_path: Path) -> None:
    made = layer()
    x = torch.randn(3, 6)
    plain = made.base_layer(x)
    made.enable_adapters(False)
    torch.testing.assert_close(made(x), plain)
    made.enable_adapters(True)
    expected = made(x)
    made.merge()
    torch.testing.assert_close(made(x), expected)
    made.unmerge()
    mixed = made(x, adapter_names=["default", "__base__", "default"])
    torch.testing.assert_close(mixed[1], plain[1])


def test_an_adapter_that_is_trained_on_is_lean_too(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "model")
    tuner = TUNERS.get("lora")
    model = tuner.apply(AutoModelForCausalLM.from_pretrained(directory), LoraSettings(rank=2))
    (tmp_path / "adapter").mkdir()
    tuner.save(model, tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(directory)
    again = tuner.load(plain, tmp_path / "adapter", trainable=True)
    assert any(isinstance(module, LeanLinear) for module in again.modules())
    ids = torch.randint(3, 90, (1, 7))
    torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)
