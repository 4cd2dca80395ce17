"""How several processes share a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ft_train.distributed.deepspeed_config import stage_of
from ft_train.distributed.fsdp_settings import FsdpSettings


@dataclass(frozen=True, slots=True)
class Division:
    """What each of several processes holds and does; without any of it each holds a whole model (DDP).

    Attributes:
        deepspeed: DeepSpeed's configuration; ``None`` without it.
        fsdp: how FSDP2 divides the model; ``None`` without it.
        sequence_parallel_size: processes that hold a sequence together.
        backend: how they talk; ``None`` takes nccl on GPUs and gloo on CPUs.
        timeout: seconds after which a process that waits for another gives up.
        save_on_each_node: write checkpoints on every node, not only on the first.
    """

    deepspeed: Mapping[str, Any] | None = None
    fsdp: FsdpSettings | None = None
    sequence_parallel_size: int = 1
    backend: str | None = None
    timeout: int = 1800
    save_on_each_node: bool = False

    @property
    def needs_processes(self) -> bool:
        """Whether even a single process must be started by torchrun."""
        return self.deepspeed is not None or self.fsdp is not None

    @property
    def divides_weights(self) -> bool:
        """Whether no process holds the whole model."""
        return self.fsdp is not None or (
            self.deepspeed is not None and stage_of(self.deepspeed) == 3
        )

    @property
    def name(self) -> str:
        """What a run prints: ``DDP``, ``ZeRO-2``, ``FSDP2``."""
        if self.deepspeed is not None:
            return f"ZeRO-{stage_of(self.deepspeed)}"
        return "DDP" if self.fsdp is None else "FSDP2"
