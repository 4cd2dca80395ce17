"""Settings of LoRA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ft_core.errors import UsageError


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """How low-rank adapters are made.

    Attributes:
        rank: width r of the two matrices.
        alpha: the product is scaled by alpha / rank.
        dropout: probability that an input of the adapter is zeroed in training.
        target_modules: names of modules, or ``DEFAULT``, ``ALL``, ``EMBEDDING``.
        target_regex: a regular expression over full module names; replaces ``target_modules``.
        bias: ``all`` also trains every bias of the model.
        default_targets: what ``DEFAULT`` means: the registered model's ``target_modules``.
        modules_to_save: names of modules that are trained whole, or ``EMBEDDING``, ``LN``.
        new_token_ids: tokens whose rows of the embedding and the head are trained.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    rank: int = 8
    alpha: float = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("DEFAULT",)
    target_regex: str | None = None
    bias: Literal["none", "all"] = "none"
    default_targets: tuple[str, ...] | str = ()
    modules_to_save: tuple[str, ...] = ()
    new_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--lora_rank {self.rank}: the rank must be at least 1; 8 is usual")
        if not math.isfinite(self.alpha) or self.alpha <= 0:
            raise UsageError(f"--lora_alpha {self.alpha}: must be greater than 0; 32 is usual")
        if not 0 <= self.dropout < 1:
            raise UsageError(
                f"--lora_dropout {self.dropout}: is a probability: at least 0, below 1"
            )
        if self.bias not in ("none", "all"):
            raise UsageError(f"--lora_bias_trainable {self.bias}: use none or all")
