"""Settings of LongLoRA."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.tuners.lora.settings import LoraSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LongLoraSettings(LoraSettings):
    """LoRA, with embeddings and norms trained whole and attention by shifted groups.

    Attributes:
        group_share: length of a group of tokens as a share of its document.
    """

    group_share: float = 0.25
