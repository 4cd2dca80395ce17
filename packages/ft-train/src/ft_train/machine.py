"""What a run asks of the machine: determinism, memory that is kept or limited, and telling that it ran out."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ft_core.errors import UsageError
from ft_train.plan import TrainingPlan

_CPU_FULL = ("can't allocate memory", "not enough memory")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt in ``malloc.h``; both are set back to its defaults."""


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Compute with deterministic algorithms only while entered, if ``enabled``.

    An operation that has none raises, so a run that ends gave what it would give again.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    workspace = os.environ.get(_WORKSPACE)
    # Read when the first GPU kernel runs; cuBLAS is not deterministic without.
    os.environ.setdefault(_WORKSPACE, ":16:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


@contextmanager
def keeping_memory(device: str) -> Iterator[None]:
    """Keep the memory that tensors of a CPU give back, for the next ones, while entered.

    The C library returns large blocks to the system at once, which hands them out again a page at a time, each of
    them cleared: a twentieth of a training step. Only glibc is told otherwise (mallopt(3)); at the end everything
    that is free goes back.
    """
    if device != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    libc.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, 128 * 1024)
        libc.mallopt(_MMAP_MAX, 65536)
        libc.malloc_trim(0)


def limit_gpu_memory(fraction: float | None, device: str) -> None:
    """Let this process take only a share of its GPU's memory.

    Args:
        fraction: above 0, at most 1; ``None`` sets no limit.
        device: as torch names it.

    Raises:
        UsageError: the device is no GPU.
    """
    if fraction is None:
        return
    if not device.startswith("cuda"):
        raise UsageError(
            f"--gpu_memory_fraction {fraction:g} limits the memory of a GPU, and this run trains on {device}; "
            "leave it out"
        )
    torch.cuda.set_per_process_memory_fraction(fraction, torch.device(device))


def check_fewer_rows(plan: TrainingPlan) -> None:
    """Refuse to look for a batch size where several processes would have to agree on it.

    Raises:
        UsageError: there are several.
    """
    if plan.auto_find_batch_size and plan.world_size > 1:
        raise UsageError(
            f"--auto_find_batch_size true works in one process, and {plan.world_size} train here: memory may run "
            "out in one of them only; give a --batch_size that fits"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, (RuntimeError, MemoryError)) and (
        isinstance(error, MemoryError) or any(text in str(error) for text in _CPU_FULL)
    )


def release_memory(device: str) -> None:
    """Give freed memory back, so that another attempt can have it."""
    import gc

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
