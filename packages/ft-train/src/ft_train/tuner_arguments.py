"""Flags of tuners: what of the model is trained, and how."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag
from ft_core.tuners.full.settings import FullSettings
from ft_core.tuners.lora.settings import LoraSettings


class TunerArguments(ArgumentGroup):
    """What of the model is trained."""

    title: ClassVar[str] = "tuner"

    sft_type: Literal["lora", "full"] = flag("lora", aliases=("train_type", "tuner_type"))
    """What is trained: low-rank adapters (Hu et al. 2021) or all weights."""

    target_modules: list[str] = flag(["DEFAULT"], aliases=("lora_target_modules",))
    """Layers that get an adapter, by name. DEFAULT takes the model's own list, ALL every linear layer except the head, EMBEDDING the embeddings."""

    target_regex: str | None = flag(None, aliases=("lora_target_regex",))
    """Layers that get an adapter, as a regular expression on their full name; replaces target_modules."""

    lora_rank: int = flag(8, ge=1)
    """Rank of the adapters."""

    lora_alpha: float = flag(32, gt=0)
    """Scale of the adapters; the update is multiplied by lora_alpha / lora_rank."""

    lora_dropout: float = flag(0.05, ge=0, lt=1, aliases=("lora_dropout_p",))
    """Share of an adapter's inputs that is dropped while training."""

    lora_bias_trainable: Literal["none", "all"] = "none"
    """Whether the model's biases are trained too."""

    def settings(
        self,
        default_targets: tuple[str, ...] | str = (),
        new_token_ids: tuple[int, ...] = (),
    ) -> LoraSettings | FullSettings:
        """Return what the tuner named by ``sft_type`` takes.

        Args:
            default_targets: what ``DEFAULT`` means for the model.
            new_token_ids: tokens that the model didn't have (``--new_special_tokens``): an adapter trains their
                rows of the embedding and the head. A tuner that can't must refuse them by name.
        """
        if self.sft_type == "full":
            return FullSettings()
        return LoraSettings(
            rank=self.lora_rank,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            target_modules=tuple(self.target_modules),
            target_regex=self.target_regex,
            bias=self.lora_bias_trainable,
            default_targets=default_targets,
            new_token_ids=new_token_ids,
        )
