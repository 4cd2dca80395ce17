"""Settings of LLaMA Pro."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaProSettings:
    """How many blocks are added, and where.

    Attributes:
        num_new_blocks: blocks in all.
        num_groups: the model's blocks are cut into so many groups, and each gets as many new ones at its end;
            ``None`` makes as many groups as new blocks.
        new_token_ids: tokens the model didn't have; new blocks can't train their rows.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    num_new_blocks: int = 4
    num_groups: int | None = None
    new_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.num_new_blocks < 1:
            raise UsageError(
                f"--llamapro_num_new_blocks {self.num_new_blocks}: must be at least 1; 4 is usual"
            )
        if self.groups < 1 or self.num_new_blocks % self.groups:
            raise UsageError(
                f"--llamapro_num_groups {self.num_groups}: must divide --llamapro_num_new_blocks {self.num_new_blocks}, so "
                "that each group gets as many new blocks"
            )
        if self.new_token_ids:
            raise UsageError(
                "--new_special_tokens: --sft_type llamapro trains new blocks and no rows of the embedding; use --sft_type "
                "lora"
            )

    @property
    def groups(self) -> int:
        """Groups that the model's blocks are cut into."""
        return self.num_new_blocks if self.num_groups is None else self.num_groups
