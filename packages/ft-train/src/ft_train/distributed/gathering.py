"""Whole weights of a model that is divided over processes, for the moment in which they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ft_core.launch import is_main


@contextmanager
def whole_weights(model: PreTrainedModel, *, here: bool | None = None) -> Iterator[PreTrainedModel]:
    """While entered, this process's model holds whole weights in its CPU memory, if they are wanted ``here``.

    Tensors are gathered one at a time, so that no process holds more than one whole beside its parts, and those
    that want them the copies. Of an adapter's model only what is trained is gathered. All processes must enter;
    where nothing is divided, nothing happens.

    Args:
        model: may be divided.
        here: whether this process wants them; ``None`` means the first process does.
    """
    here = is_main() if here is None else here
    only_trained = isinstance(model, PeftModel)
    whole: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for parameter in model.parameters():
        if (parameter.requires_grad or not only_trained) and _is_divided(parameter):
            copied = _gather(parameter)
            if here:
                whole[parameter] = torch.nn.Parameter(copied, requires_grad=parameter.requires_grad)
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter in whole
    ]
    for module, name, parameter in places:
        module._parameters[name] = whole[parameter]
    try:
        yield model
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter


def whole_tensor(value: Any) -> Any:
    """Return a number that torch holds in parts as a whole; all processes must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _is_divided(parameter: torch.nn.Parameter) -> bool:
    return isinstance(parameter.data, DTensor) or _is_zero3(parameter)


def _is_zero3(parameter: torch.nn.Parameter) -> bool:
    """Whether DeepSpeed divided it: it marks parameters with an id of its own."""
    return getattr(parameter, "ds_id", None) is not None


def _gather(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return the whole tensor on the CPU; all processes must call it."""
    data = parameter.detach()
    if isinstance(data, DTensor):
        whole: torch.Tensor = data.full_tensor()
        return whole.to("cpu")
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().to("cpu", copy=True)
