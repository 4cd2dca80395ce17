"""What an export would write: names, sizes and memory, without doing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ft_core.models.memory import free_memory, meta_model
from ft_core.prepare import Prepared
from ft_quant.dtypes import stored_dtype
from ft_quant.export_arguments import ConvertArguments, QuantizeArguments
from ft_quant.methods.layers import group_size, layers_of
from ft_quant.plan import Plan
from ft_quant.weights import open_weights

_LOADING = 1.15
"""Memory of a process that loads a model, over the model's own size in float32."""

_GGUF_BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
"""Bits of a weight with its share of the scales."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of weights.

    Attributes:
        linear: in layers that are quantized.
        other: in embeddings, the head and norms.
        bytes_each: of a stored weight.
    """

    linear: int
    other: int
    bytes_each: int


def describe(
    prepared: Prepared, plan: Plan, quantize: QuantizeArguments, convert: ConvertArguments
) -> Iterator[str]:
    """Give a line for each thing that would be made, and one about memory.

    Raises:
        ModelError: the model can't be read, or can't be quantized as asked.
        UsageError: the group size doesn't fit.
    """
    model = meta_model(
        prepared.directory, torch.float32, trust_remote_code=prepared.trust_remote_code
    )
    sizes = _sizes(prepared, model)
    group = 0
    if quantize.quant_bits and quantize.quant_method in ("awq", "gptq", "rtn"):
        group = group_size(layers_of(model), quantize.quant_group_size)
    for kind, target in plan.targets.items():
        size = {
            "peft": _checkpoint_size(prepared),
            "merged": (sizes.linear + sizes.other) * sizes.bytes_each,
            "quantized": _quantized(sizes, quantize.quant_bits, group),
            "gguf": _checkpoint_size(prepared)
            if convert.gguf_adapter
            else int((sizes.linear + sizes.other) * _GGUF_BITS.get(str(convert.to_gguf), 0) / 8),
            "ollama": 0,
        }[kind]
        detail = f", groups of {group}" if kind == "quantized" and group else ""
        yield f"{kind:<10} {target} (about {size / 1e6:,.1f} MB{detail})"
    whole = (sizes.linear + sizes.other) * 4 * _LOADING
    streamed = open_weights(prepared.directory).largest_shard
    needs = streamed if plan.merges or quantize.quant_method in ("rtn", "fp8") else whole
    yield (
        f"memory     about {needs / 2**30:.2f} GiB to make, {whole / 2**30:.2f} GiB for each process of the verification, of "
        f"{free_memory('cpu') / 2**30:.1f} free"
    )


def _sizes(prepared: Prepared, model: PreTrainedModel) -> Sizes:
    linear = sum(outer * inner for outer, inner in layers_of(model).shapes.values())
    total = sum(parameter.numel() for parameter in model.parameters())
    return Sizes(linear, total - linear, stored_dtype(prepared.directory).itemsize)


def _quantized(sizes: Sizes, bits: int, group: int) -> int:
    scales = sizes.linear * sizes.bytes_each // (group or 64)
    return sizes.linear * bits // 8 + scales + sizes.other * sizes.bytes_each


def _checkpoint_size(prepared: Prepared) -> int:
    checkpoint = prepared.checkpoint
    if checkpoint is None:
        return 0
    files = (file for file in checkpoint.path.rglob("adapter_model.*") if file.is_file())
    return sum(file.stat().st_size for file in files)
