"""Weights of a model on a CPU in the order in which oneDNN multiplies them.

An ordinary product of a few rows with a weight spends much of its time on arranging the weight for the
processor's vector units, in every step anew; that of a single row reads the weight in an order of its own. Here the
weight is arranged once, for single rows and for a few. The arranged weights are copies, so they are made only where
memory is plentiful.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ft_core.models.memory import free_memory

MEMORY_SHARE = 0.25
"""Of the memory that is to be had, cached files included, that the copies may take."""

LEAST_SIDE = 64
"""Smaller weights, such as those of adapters, aren't worth it."""

DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Packed:
    """Layers that multiply by arranged weights, until ``undo``."""

    layers: tuple[nn.Linear, ...] = ()

    def undo(self) -> None:
        """Let the layers multiply as before and free the copies."""
        for layer in self.layers:
            vars(layer).pop("forward", None)


def pack_linears(model: nn.Module) -> Packed:
    """Arrange the weights of a model's linear layers, if it is on a CPU and memory allows.

    Layers of other classes (quantized ones) and those whose ``forward`` somebody has replaced (weights that
    are moved between devices) are left alone.

    Args:
        model: in evaluation mode; its weights must not be changed afterwards, or the layers that are
            changed go back to the ordinary way.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and _can_be_packed(module)
    ]
    size = sum(layer.weight.numel() * layer.weight.itemsize for layer in layers)
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or size > MEMORY_SHARE * free_memory("cpu"):
        return Packed()
    for layer in layers:
        vars(layer)["forward"] = _packed_forward(layer)
    return Packed(tuple(layers))


def _can_be_packed(module: nn.Linear) -> bool:
    return (
        type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.device.type == "cpu"
        and module.weight.dtype in DTYPES
        and not module.weight.is_inference()  # such don't tell that they were changed
        and min(module.weight.shape) >= LEAST_SIDE
    )


def _packed_forward(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    weight, version = layer.weight, layer.weight._version
    with torch.no_grad():
        arranged = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 8)

    def forward(states: torch.Tensor) -> torch.Tensor:
        changed = layer.weight is not weight or weight._version != version
        if changed or torch.is_grad_enabled() or states.dtype != weight.dtype:
            return nn.functional.linear(states, layer.weight, layer.bias)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            states, arranged, layer.bias, "none", [], ""
        )
        return product

    return forward
