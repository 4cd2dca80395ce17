"""Settings of BOFT."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import UsageError
from ft_core.tuners.targets import TargetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BoftSettings(TargetSettings):
    """How weights are turned.

    Attributes:
        block_size: rows and columns of a block; 0 leaves it to ``block_num``.
        block_num: blocks of a matrix; 0 leaves it to ``block_size``.
        dropout: probability that a block leaves the weights as they are in training.

    Raises:
        UsageError: both or none of size and number.
    """

    block_size: int = 4
    block_num: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if (self.block_size > 0) == (self.block_num > 0):
            raise UsageError(
                f"--boft_block_size {self.block_size} and --boft_block_num {self.block_num}: give one of them; the other "
                "must be 0"
            )
