"""Settings of LongLoRA."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.tuners.lora.settings import LoraSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LongLoraSettings(LoraSettings):
    """LoRA, with embeddings and norms trained whole and attention by shifted groups.

    Attributes:
        context_length: tokens that texts are cut to; groups are a quarter as long, as in the paper. ``None``
            makes them a quarter of each document.
    """

    context_length: int | None = None

    @property
    def group_length(self) -> int | None:
        """Tokens of a group; ``None`` makes it a quarter of each document."""
        return None if self.context_length is None else max(1, self.context_length // 4)
