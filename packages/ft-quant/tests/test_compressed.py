"""Round-to-nearest weights: numbers, scales and packing against plain arithmetic and compressed-tensors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ft_core import ModelError, UsageError
from ft_core.models.loading import load_model
from ft_core.testing import tiny_model
from ft_quant.export_arguments import QuantizeArguments
from ft_quant.methods import compressed
from ft_quant.methods.compressed import pack, round_groups
from ft_quant.methods.request import QuantizeRequest

LAYER = "model.layers.0.mlp.down_proj"


def quantize(
    base: Path, target: Path, method: str, bits: int, group: int = 0
) -> dict[str, torch.Tensor]:
    target.mkdir()
    settings = QuantizeArguments(quant_method=method, quant_bits=bits, quant_group_size=group)
    compressed.quantize(QuantizeRequest(base, target, method, bits, settings))
    return load_file(target / "model.safetensors")


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Read numbers out of 32-bit words one by one."""
    rows = []
    for row in words.tolist():
        numbers = []
        for word in row:
            word &= 0xFFFFFFFF
            numbers += [(word >> shift) % 2**bits - 2 ** (bits - 1) for shift in range(0, 32, bits)]
        rows.append(numbers)
    return torch.tensor(rows)


@pytest.mark.parametrize("bits", [4, 8])
def test_numbers_survive_packing(bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    numbers = torch.randint(low, high, (3, 64), generator=torch.Generator().manual_seed(1))
    words = pack(numbers.to(torch.int8), bits)
    assert words.dtype == torch.int32 and words.shape == (3, 64 * bits // 32)
    assert torch.equal(unpack(words, bits), numbers)


def test_scales_lose_no_more_than_the_full_range() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
    weight[0, 0] = 20.0
    numbers, scales = round_groups(weight, 4, 32)
    restored = (numbers.unflatten(-1, (-1, 32)) * scales[..., None]).flatten(-2)
    plain = weight.unflatten(-1, (-1, 32)).abs().amax(-1, keepdim=True) / 7.5
    rounded = (weight.unflatten(-1, (-1, 32)) / plain).round().clamp(-8, 7) * plain
    error = (restored - weight).square().sum()
    assert error < (rounded.flatten(-2) - weight).square().sum()
    assert numbers.min() >= -8 and numbers.max() <= 7


def test_weights_of_zero_stay_zero() -> None:
    numbers, scales = round_groups(torch.zeros(2, 32), 4, 32)
    assert not numbers.any() and bool(scales.isfinite().all()) and bool((scales > 0).all())


@pytest.mark.parametrize(("bits", "worst"), [(4, 0.15), (8, 0.01)])
def test_a_models_layers_become_numbers_near_their_weights(
    base: Path, tmp_path: Path, bits: int, worst: float
) -> None:
    tensors = quantize(base, tmp_path / "out", "rtn", bits)
    plain = load_file(base / "model.safetensors")
    assert tensors[f"{LAYER}.weight_shape"].tolist() == [64, 128]
    numbers = unpack(tensors[f"{LAYER}.weight_packed"], bits)
    scales = tensors[f"{LAYER}.weight_scale"]
    restored = (numbers.unflatten(-1, (-1, 64)) * scales[..., None]).flatten(-2)
    weight = plain[f"{LAYER}.weight"]
    assert (restored - weight).norm() / weight.norm() < worst
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(tensors[name], plain[name])
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["ignore"] == ["lm_head"]
    assert config["config_groups"]["group_0"]["weights"]["group_size"] == 64


@pytest.mark.skipif(
    importlib.util.find_spec("compressed_tensors") is None,
    reason="compressed-tensors is not installed (pip install 'ft-quant[rtn]')",
)
@pytest.mark.parametrize(("method", "bits"), [("rtn", 4), ("rtn", 8), ("fp8", 8)])
def test_transformers_reads_the_same_weights(
    base: Path, tmp_path: Path, method: str, bits: int
) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    tensors = quantize(base, tmp_path / "out", method, bits)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    group = config["config_groups"]["group_0"]
    scheme = QuantizationScheme(**group)
    parts = {
        name.removeprefix(f"{LAYER}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{LAYER}.")
    }
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    restored = compressor.decompress(parts, scheme)["weight"].float()
    weight = load_file(base / "model.safetensors")[f"{LAYER}.weight"]
    assert 0 < (restored - weight).norm() / weight.norm() < (0.15 if bits == 4 else 0.03)
    model = load_model(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert bool(logits.isfinite().all())


def test_groups_that_dont_fit_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--quant_group_size 128 doesn't divide the 64 inputs of"):
        quantize(base, tmp_path / "out", "rtn", 4, 128)
    odd = tiny_model(tmp_path / "odd", hidden_size=40, intermediate_size=40)
    with pytest.raises(ModelError, match=r"40 inputs, which groups of 16 don't divide"):
        quantize(odd, tmp_path / "other", "rtn", 4)
