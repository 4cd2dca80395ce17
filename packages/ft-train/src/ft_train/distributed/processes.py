"""Joining this process with the others of its run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from ft_core.errors import UsageError
from ft_core.launch import world_size
from ft_train.distributed.division import Division


@contextmanager
def process_group(division: Division) -> Iterator[None]:
    """While entered, this process and the others that torchrun started can talk to each other.

    Raises:
        UsageError: the processes don't suit the flags, the machine lacks the backend, or has fewer GPUs than
            processes.
    """
    world = world_size()
    size = division.sequence_parallel_size
    if world % size:
        raise UsageError(
            f"--sequence_parallel_size {size} doesn't divide the {world} process{'es' if world > 1 else ''} of this "
            f"run; set NPROC_PER_NODE to a multiple of {size}"
        )
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    # DeepSpeed calls functions of torch by their older names.
    warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(_own_gpu())
    dist.init_process_group(
        _backend(division.backend, on_gpu=on_gpu), timeout=timedelta(seconds=division.timeout)
    )
    yield
    # Not after an error: others may still wait for this process, which torchrun ends with them.
    dist.destroy_process_group()


def _own_gpu() -> int:
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise UsageError(
            f"NPROC_PER_NODE={os.environ.get('LOCAL_WORLD_SIZE', number + 1)}: this node has {there} GPUs, and each "
            f"process needs its own; set NPROC_PER_NODE={there}"
        )
    return number


def _backend(asked: str | None, *, on_gpu: bool) -> str:
    if asked is None:
        return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    there = {
        "nccl": on_gpu and dist.is_nccl_available(),
        "gloo": dist.is_gloo_available(),
        "mpi": dist.is_mpi_available(),
        "ccl": dist.is_backend_available("ccl"),
    }
    if not there[asked]:
        usable = ", ".join(name for name, ready in there.items() if ready)
        why = "needs a GPU" if asked == "nccl" and not on_gpu else "is not part of this torch"
        raise UsageError(f"--ddp_backend {asked} {why}; use one of {usable}, or leave it out")
    return asked
