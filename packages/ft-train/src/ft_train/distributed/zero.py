"""ZeRO-3: each process holds a part of every weight from before the first step (https://arxiv.org/abs/1910.02054)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def divide(
    model: torch.nn.Module, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> None:
    """Divide a model that lies on the CPU over all processes, a tensor at a time, in place.

    DeepSpeed's engine would first move the whole model to each device, which may not hold it.

    Args:
        model: with its trainable part attached, the same on all processes.
        config: DeepSpeed's, with the values of the run filled in.
        device: where the parts and the buffers go.
        dtype: what DeepSpeed computes in; its optimizer keeps float32 copies of what is trained.
    """
    import deepspeed

    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # takes the group there is
    model.to(dtype)
    deepspeed.zero.Init(module=model, config_dict_or_path=dict(config))
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
