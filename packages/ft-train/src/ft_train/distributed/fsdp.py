"""FSDP2: each process holds a part of every weight, its gradient and its optimizer state.

A layer's weights are gathered when it computes and given back after (Zhao et al. 2023,
https://arxiv.org/abs/2304.11277; torch's ``fully_shard``). The same code runs on GPUs by nccl and on CPUs by
gloo.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from transformers import PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.groups import module_groups
from ft_train.distributed.fsdp_settings import FsdpSettings
from ft_train.resume import OPTIMIZER_DIRECTORY


def shard(model: PreTrainedModel, settings: FsdpSettings, device: str) -> PreTrainedModel:
    """Divide a model over all processes, layer by layer, in place.

    Args:
        model: with its trainable part attached, the same on all processes.
        settings: how.
        device: ``"cuda"`` or ``"cpu"``.

    Raises:
        UsageError: a class of layers that the model doesn't have, or processes that can't be divided by node.
        ModelError: the model is quantized.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        raise ModelError(
            "--fsdp divides plain weights; train quantized ones by --deepspeed default-zero2, or without --fsdp"
        )
    mesh = _mesh(settings, device)
    policy = CPUOffloadPolicy(pin_memory=device != "cpu") if settings.offload else OffloadPolicy()
    for name in _layers(model, settings.layers):
        fully_shard(
            model.get_submodule(name),
            mesh=mesh,
            reshard_after_forward=settings.reshard_after_forward,
            offload_policy=policy,
        )
    fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=policy)
    return model


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether ``shard`` divided the model."""
    return isinstance(model, FSDPModule)


def give_back(model: torch.nn.Module) -> None:
    """Divide again what a forward pass without a backward pass left gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def save_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, directory: Path
) -> None:
    """Write the optimizer's state, each process its parts; all processes must call it."""
    give_back(model)
    state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    save(state, checkpoint_id=directory / OPTIMIZER_DIRECTORY)


def load_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, directory: Path
) -> None:
    """Read the state that ``save_optimizer`` wrote, also on another number of processes."""
    state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    load(state, checkpoint_id=directory / OPTIMIZER_DIRECTORY)
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def _mesh(settings: FsdpSettings, device: str) -> DeviceMesh:
    world = dist.get_world_size()
    if not settings.within_nodes:
        return init_device_mesh(device, (world,), mesh_dim_names=("shard",))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if world % local:
        raise UsageError(
            f"--fsdp hybrid_shard needs as many processes on every node: {world} aren't a multiple of {local}"
        )
    shape, names = (world // local, local), ("replicate", "shard")
    return init_device_mesh(device, shape, mesh_dim_names=names)


def _layers(model: PreTrainedModel, classes: tuple[str, ...]) -> tuple[str, ...]:
    if not classes:
        return module_groups(model).layers
    found = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if type(module).__name__ in classes
    }
    if missing := set(classes) - set(found.values()):
        own = type(model.get_submodule(module_groups(model).layers[0])).__name__
        raise UsageError(
            f"--fsdp_config: the model has no module of class {sorted(missing)[0]}; its layers are {own}"
        )
    return tuple(found)
