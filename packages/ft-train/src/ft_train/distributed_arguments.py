"""Flags of training on several processes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import DependencyError
from ft_train.distributed.deepspeed_config import read_deepspeed
from ft_train.distributed.division import Division
from ft_train.distributed.fsdp_settings import read_fsdp


class DistributedArguments(ArgumentGroup):
    """How several processes, which NPROC_PER_NODE and NNODES start, share a run."""

    title: ClassVar[str] = "several processes"

    deepspeed: dict[str, Any] | str | None = None
    """Divide the run by DeepSpeed: default-zero2, default-zero3, zero2-offload, zero3-offload, a JSON file, or JSON."""

    fsdp: str = ""
    """Divide the model by FSDP2: full_shard, shard_grad_op, hybrid_shard or hybrid_shard_zero2, and offload."""

    fsdp_config: dict[str, Any] | str | None = None
    """Settings of FSDP2, as a JSON file or JSON: transformer_layer_cls_to_wrap, reshard_after_forward, cpu_offload."""

    sequence_parallel_size: int = flag(1, ge=1)
    """Processes that hold each sequence together, for long ones; it must divide the model's attention heads."""

    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl"] | None = None
    """How processes talk; none takes nccl on GPUs and gloo on CPUs."""

    ddp_timeout: int = flag(1800, ge=1)
    """Seconds after which a process that waits for another gives up."""

    save_on_each_node: bool = False
    """Write checkpoints on every node, where they don't share a disk."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse configurations that can't be read, and DeepSpeed where it is not installed."""
        if self.division().deepspeed is not None and find_spec("deepspeed") is None:
            raise DependencyError(
                f"--deepspeed {self.deepspeed}", "DeepSpeed", "pip install 'ft-train[deepspeed]'"
            )

    def division(self) -> Division:
        """Return what the flags say.

        Raises:
            UsageError: one of them can't be read.
        """
        return Division(
            None if self.deepspeed is None else read_deepspeed(self.deepspeed),
            read_fsdp(self.fsdp, self.fsdp_config),
            self.sequence_parallel_size,
            self.ddp_backend,
            self.ddp_timeout,
            self.save_on_each_node,
        )
