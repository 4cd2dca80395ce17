"""Settings of VeRA."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import UsageError
from ft_core.tuners.targets import TargetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class VeraSettings(TargetSettings):
    """How the shared matrices and the vectors are made.

    Attributes:
        rank: of the shared random matrices.
        save_projection: keep these matrices in checkpoints; without, they are drawn again from ``seed``.
        dropout: probability that an input of the adapter is zeroed in training.
        d_initial: what the vector d begins with.
        seed: of the random matrices.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    rank: int = 256
    save_projection: bool = True
    dropout: float = 0.0
    d_initial: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--vera_rank {self.rank}: the rank must be at least 1; 256 is usual")
