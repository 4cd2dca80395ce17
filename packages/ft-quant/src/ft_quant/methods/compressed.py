"""Round-to-nearest weights in the compressed-tensors format, made with torch alone and one shard at a time.

The format is https://github.com/vllm-project/compressed-tensors: ``pack-quantized`` for whole numbers and
``float-quantized`` for FP8. Transformers and vLLM load both.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from ft_core.models.memory import meta_model
from ft_quant.methods.layers import Layers, group_size, layers_of
from ft_quant.methods.request import QuantizeRequest
from ft_quant.weights import open_weights, rewrite

_SHRINK = tuple(1 - step / 40 for step in range(17))
"""Parts of the full range that are tried for each group: cutting off outliers often costs less than a coarse grid."""

_FP8_MAX = 448.0
"""The largest number of ``float8_e4m3fn``."""


def quantize(request: QuantizeRequest) -> dict[str, Any]:
    """Write a model with its linear layers in few bits; the head and embeddings stay as they are.

    Returns:
        What was done, for the record.

    Raises:
        ModelError: no layer can be quantized, or a file of the source is damaged.
        UsageError: the group size doesn't fit.
    """
    model = meta_model(request.source, torch.float32, trust_remote_code=request.trust_remote_code)
    layers = layers_of(model)
    size = 0
    if request.method == "rtn":
        size = group_size(layers, request.settings.quant_group_size)

    weights = open_weights(request.source)

    def change(name: str) -> dict[str, torch.Tensor]:
        tensor = weights.read(name)
        layer = name.removesuffix(".weight")
        if layer == name or layer not in layers.shapes or tensor.ndim != 2:
            return {name: tensor}
        if request.method == "fp8":
            return _fp8(layer, tensor)
        return _whole_numbers(layer, tensor, request.bits, size)

    rewrite(weights, request.target, change)
    _write_config(request, layers, size)
    facts = {
        "layers": len(layers.shapes),
        "kept": list(layers.kept),
        "format": "compressed-tensors",
    }
    return {**facts, "group_size": size} if size else facts


def round_groups(weight: torch.Tensor, bits: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round weights to whole numbers, each group with the scale that loses least.

    Args:
        weight: (out, in).
        bits: of a number.
        size: weights of a row that share a scale; divides in.

    Returns:
        The numbers (out, in) int8 from -2^(bits-1), and the scales (out, in / size) in the weight's data type.
    """
    groups = weight.float().reshape(*weight.shape[:-1], -1, size)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    full = groups.abs().amax(-1).clamp(min=1e-12) / ((high - low) / 2)
    best_scale, best_loss = full, torch.full_like(full, torch.inf)
    for share in _SHRINK:
        scale = (full * share).to(weight.dtype).float().clamp(min=torch.finfo(weight.dtype).tiny)
        error = (groups / scale[..., None]).round().clamp(low, high) * scale[..., None] - groups
        loss = error.square().sum(-1)
        best_scale = torch.where(loss < best_loss, scale, best_scale)
        best_loss = torch.minimum(loss, best_loss)
    numbers = (groups / best_scale[..., None]).round().clamp(low, high).to(torch.int8)
    return numbers.flatten(-2), best_scale.to(weight.dtype)


def pack(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack whole numbers into 32-bit words, the first in the lowest bits.

    Args:
        numbers: (out, in) int8 from -2^(bits-1); in is a multiple of ``32 / bits``.
        bits: 4 or 8.

    Returns:
        (out, in * bits / 32) int32.
    """
    each = 32 // bits
    positive = (numbers.to(torch.int64) + 2 ** (bits - 1)).reshape(len(numbers), -1, each)
    shifts = torch.arange(0, 32, bits, dtype=torch.int64, device=numbers.device)
    words = (positive << shifts).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _whole_numbers(
    layer: str, weight: torch.Tensor, bits: int, size: int
) -> dict[str, torch.Tensor]:
    numbers, scales = round_groups(weight, bits, size)
    return {
        f"{layer}.weight_packed": pack(numbers, bits),
        f"{layer}.weight_scale": scales,
        f"{layer}.weight_shape": torch.tensor(weight.shape, dtype=torch.int64),
    }


def _fp8(layer: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.float().abs().amax(-1, keepdim=True).clamp(min=1e-12) / _FP8_MAX
    scale = scale.to(weight.dtype).clamp(min=torch.finfo(weight.dtype).tiny)
    values = (weight.float() / scale.float()).clamp(-_FP8_MAX, _FP8_MAX)
    return {
        f"{layer}.weight": values.to(torch.float8_e4m3fn),
        f"{layer}.weight_scale": scale,
    }


def _write_config(request: QuantizeRequest, layers: Layers, size: int) -> None:
    config = json.loads((request.source / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, Any] = {"num_bits": request.bits, "symmetric": True, "dynamic": False}
    inputs: dict[str, Any] | None = None
    if request.method == "fp8":
        weights |= {"type": "float", "strategy": "channel"}
        inputs = {**weights, "strategy": "token", "dynamic": True}
    else:
        weights |= {"type": "int", "strategy": "group", "group_size": size}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized" if request.method == "fp8" else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": inputs,
                "output_activations": None,
            }
        },
        "ignore": list(layers.kept),
    }
    (request.target / "config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
