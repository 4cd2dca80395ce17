"""Flags of pushing checkpoints to a hub."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError

PushStrategy = Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"]


class PushArguments(ArgumentGroup):
    """Where checkpoints are pushed to."""

    title: ClassVar[str] = "hub"

    push_to_hub: bool = False
    """Push checkpoints to ModelScope, or with USE_HF=1 to Hugging Face."""

    hub_model_id: str | None = None
    """Repository to push to, as owner/name or name; none takes {model_type}-{sft_type} of the token's owner. It is made if there is none."""

    hub_token: str | None = flag(None, secret=True)
    """Token that may write there; none takes MODELSCOPE_API_TOKEN, for Hugging Face HF_TOKEN."""

    hub_private_repo: bool = False
    """Make the repository private if it is made."""

    push_hub_strategy: PushStrategy = "push_best"
    """What is pushed when: the best model at the end or after each save, the last one after each save, or the last or all checkpoints whole, with what resuming needs."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse flags of pushing where nothing is pushed."""
        alone = {"hub_model_id", "hub_private_repo", "push_hub_strategy"} & given
        if alone and not self.push_to_hub:
            raise UsageError(
                f"--{min(alone)} has no effect without --push_to_hub true; add it, or leave --{min(alone)} out"
            )
