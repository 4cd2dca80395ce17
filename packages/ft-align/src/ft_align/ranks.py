"""What the processes of a run tell each other; with one process, nothing."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """Return what every rank has, in their order; all ranks call together."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    gathered: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def add_up(*values: float) -> list[float]:
    """Return the sum of each number over all ranks; all ranks call together."""
    return [sum(parts) for parts in zip(*gather(values), strict=True)]
