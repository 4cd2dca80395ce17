"""Settings of bottleneck adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ft_core.errors import UsageError

Activation = Literal["gelu", "relu", "silu", "tanh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """How bottlenecks are made.

    Attributes:
        length: width of a bottleneck.
        act: its activation.
        new_token_ids: tokens the model didn't have; bottlenecks can't train their rows.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    length: int = 128
    act: Activation = "gelu"
    new_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"--adapter_length {self.length}: must be at least 1; 128 is usual")
        if self.new_token_ids:
            raise UsageError(
                "--new_special_tokens: --sft_type adapter trains no rows of the embedding; use --sft_type lora"
            )
