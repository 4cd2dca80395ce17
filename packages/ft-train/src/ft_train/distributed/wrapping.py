"""What a model is wrapped in, looked up by its type: a loss that falls doesn't tell how a run is divided."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ft_core.errors import FtError, UsageError
from ft_core.launch import world_size
from ft_core.recipe import Recipe, TokenRecipe
from ft_train.distributed.fsdp import is_sharded
from ft_train.plan import TrainingPlan


def check_processes(plan: TrainingPlan, recipe: Recipe) -> None:
    """Refuse a plan for another number of processes than there are, and a method that slices don't suffice for.

    Raises:
        UsageError: naming both numbers, or the method.
    """
    size = plan.division.sequence_parallel_size
    if size > 1 and not (isinstance(recipe, TokenRecipe) and recipe.sums_tokens):
        raise UsageError(
            f"--sequence_parallel_size {size}: {recipe.name} compares whole sequences, of which a process would hold a "
            "slice; leave it out"
        )
    if plan.world_size != world_size():
        raise UsageError(
            f"the plan is for {plan.world_size} processes and torchrun started {world_size()}; derive the plan with "
            "world_size=ft_core.launch.world_size()"
        )


def check_wrapped(model: torch.nn.Module, plan: TrainingPlan) -> None:
    """Refuse a model that isn't divided as the plan says.

    Libraries fall back silently: accelerate trains by DDP where FSDP was asked for on CPUs.

    Raises:
        FtError: naming what was asked for and what is there.
    """
    found, wanted = how_wrapped(model), plan.division.name
    alone = plan.world_size == 1 and wanted == "DDP"
    if found != wanted and not (alone and found == "whole"):
        raise FtError(
            f"this run is to train by {wanted}, and the model is wrapped as {found} ({type(model).__name__}): these "
            "versions of transformers, accelerate and torch don't do together what was asked for"
        )


def how_wrapped(model: torch.nn.Module) -> str:
    """Return ``DDP``, ``FSDP2``, ``ZeRO-2``, … or ``whole``, by the model's type."""
    if isinstance(model, DistributedDataParallel):
        return "DDP"
    if is_sharded(model):
        return "FSDP2"
    if type(model).__module__.startswith("deepspeed."):
        engine: Any = model
        return f"ZeRO-{engine.zero_optimization_stage()}"
    return "whole"
