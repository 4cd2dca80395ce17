"""EVA: adapters that begin with the directions in which a layer's inputs vary most (arXiv:2410.07170)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

_KEPT = 4
"""Directions that are followed for each one that is used, while rows come in."""


def begin_by_inputs(adapted: PeftModel, run: Callable[[PreTrainedModel], None]) -> None:
    """Set each A to the leading right singular vectors of its layer's inputs; B stays zero.

    The vectors are found row by row by incremental SVD, which needs little memory. A layer that sees fewer
    tokens than its rank keeps random directions for the rest.

    Args:
        adapted: with adapters of LoRA.
        run: runs a model on rows of the training data.
    """
    layers = {
        name: module
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), torch.nn.Linear)
    }
    seen: dict[str, torch.Tensor] = {}

    def watch(name: str, rank: int) -> Callable[[torch.nn.Module, Any], None]:
        def hook(module: torch.nn.Module, inputs: Any) -> None:
            rows = inputs[0].detach().float().flatten(0, -2)
            known = seen.get(name, rows[:0])
            _, lengths, directions = torch.linalg.svd(torch.cat([known, rows]), full_matrices=False)
            seen[name] = (lengths[:, None] * directions)[: rank * _KEPT]

        return hook

    name = str(adapted.active_adapter)
    handles = [
        layer.register_forward_pre_hook(watch(full, layer.r[name]))
        for full, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            run(adapted.get_base_model())
    finally:
        for handle in handles:
            handle.remove()
    for full, layer in layers.items():
        weight = layer.lora_A[name].weight.data
        found = torch.nn.functional.normalize(seen[full][: len(weight)], dim=1)
        weight[: len(found)] = found.to(weight)
