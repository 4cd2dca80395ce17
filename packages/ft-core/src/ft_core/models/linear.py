"""Telling linear layers, plain and quantized, from other modules."""

from __future__ import annotations

import torch
from transformers.pytorch_utils import Conv1D

_QUANTIZED = frozenset(
    {
        *("HQQLinear", "EetqLinear"),
        *("BaseQuantLinear", "BaseQuantizeLinear", "GPTQQuantLinear"),
        *("WQLinear_GEMM", "WQLinear_GEMV", "WQLinear_GEMVFast"),
        *("WQLinear_Exllama", "WQLinear_ExllamaV2", "WQLinear_IPEX", "WQLinear_Marlin"),
        *("QuantizedLinear", "VQuantLinear"),
    }
)
"""Classes of quantized layers that don't derive from ``torch.nn.Linear``; by name, since asking must not
import packages that may not be there."""


def matrix_shape(module: torch.nn.Module) -> tuple[int, int]:
    """Return (out, in) of a linear layer, also where its weights are packed."""
    if isinstance(module, Conv1D):
        inner, outer = module.weight.shape
        return outer, inner
    return int(vars(module)["out_features"]), int(vars(module)["in_features"])


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module multiplies by a matrix of weights, plain, quantized or transposed as GPT-2 keeps it."""
    return isinstance(module, torch.nn.Linear | Conv1D) or any(
        kind.__name__ in _QUANTIZED for kind in type(module).__mro__
    )
