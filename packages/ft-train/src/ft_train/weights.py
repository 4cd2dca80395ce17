"""States of a run that are kept in memory or in a checkpoint: trained weights, random generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of all trained parameters, in the CPU's memory."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def restore_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put copies that ``trained_weights`` made back into the model."""
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)


def random_state(device: str) -> dict[str, Any]:
    """Return the states of all random generators in the form that transformers reads back."""
    import random

    import numpy as np

    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if device == "cuda":
        single = not (dist.is_available() and dist.is_initialized())
        state["cuda"] = (
            torch.cuda.random.get_rng_state() if single else torch.cuda.random.get_rng_state_all()
        )
    return state
