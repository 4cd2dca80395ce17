"""The bottleneck: down, activation, up, and what came in is added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from ft_core.errors import ModelError
from ft_core.models.groups import module_groups
from ft_core.models.linear import is_linear

CHILD = "ft_adapter"
"""Under which name a layer holds its bottleneck."""

_ACTIVATIONS: Mapping[str, type[torch.nn.Module]] = {
    "gelu": torch.nn.GELU,
    "relu": torch.nn.ReLU,
    "silu": torch.nn.SiLU,
    "tanh": torch.nn.Tanh,
}


class Bottleneck(torch.nn.Module):
    """x + up(act(down(x))), float32; ``up`` begins with zeros, so that it begins as nothing.

    Args:
        width: of what comes in and goes out.
        length: of the bottleneck.
        act: its activation.
        device: where it is made.
    """

    def __init__(self, width: int, length: int, act: str, device: torch.device) -> None:
        super().__init__()
        options: dict[str, Any] = {"device": device, "dtype": torch.float32}
        self.down = torch.nn.Linear(width, length, **options)
        self.act = _ACTIVATIONS[act]()
        self.up = torch.nn.Linear(length, width, **options)
        torch.nn.init.normal_(self.down.weight, std=0.02)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(parameter)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what goes out, in the data type of what came in; both are [..., width]."""
        change: torch.Tensor = self.up(self.act(self.down(hidden.to(self.down.weight.dtype))))
        return hidden + change.to(hidden.dtype)


def find_sublayers(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the parts of each decoder layer that are added to the residual stream: attention and feed-forward.

    Raises:
        ModelError: a layer has none.
    """
    width = int(model.config.get_text_config().hidden_size)
    found: list[str] = []
    for layer in module_groups(model).layers:
        parts = [
            f"{layer}.{name}"
            for name, child in model.get_submodule(layer).named_children()
            if any(parameter.ndim > 1 for parameter in child.parameters())
            and (not is_linear(child) or getattr(child, "out_features", width) == width)
        ]
        if not parts:
            raise ModelError(
                f"{layer} has no attention or feed-forward layer to put an adapter after"
            )
        found += parts
    return tuple(found)


def insert(model: PreTrainedModel, names: tuple[str, ...], length: int, act: str) -> None:
    """Put a bottleneck after each of the named modules."""
    width = int(model.config.get_text_config().hidden_size)
    for name in names:
        module = model.get_submodule(name)
        device = next(module.parameters()).device
        module.add_module(CHILD, Bottleneck(width, length, act, device))
        module.register_forward_hook(_pass_through)


def bottlenecks(model: torch.nn.Module) -> dict[str, Bottleneck]:
    """Return all bottlenecks by the name of the module they come after."""
    return {
        name.removesuffix(f".{CHILD}"): module
        for name, module in model.named_modules()
        if isinstance(module, Bottleneck)
    }


def _pass_through(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
    bottleneck = module.get_submodule(CHILD)
    if isinstance(output, tuple):
        return (bottleneck(output[0]), *output[1:])
    return bottleneck(output)
