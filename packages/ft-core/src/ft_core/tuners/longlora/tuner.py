"""LongLoRA: LoRA whose training attends by shifted groups; a checkpoint is a plain peft adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from ft_core.models.modules import EMBEDDING, NORMS
from ft_core.tuners.longlora.attention import enable_shifted_attention, group_length_of
from ft_core.tuners.longlora.settings import LongLoraSettings
from ft_core.tuners.lora.tuner import LORA
from ft_core.tuners.note import add_to_note, read_note


@dataclass(frozen=True, slots=True)
class LongLoraTuner:
    """Trains low-rank adapters, embeddings and norms on long texts; answers with full attention."""

    name: str = "longlora"

    def apply(self, model: PreTrainedModel, settings: LongLoraSettings) -> PreTrainedModel:
        """Attach adapters, train embeddings and norms whole, and switch the attention of training.

        Raises:
            UsageError: as LoRA; or the model doesn't attend by SDPA.
        """
        enable_shifted_attention(model, settings.group_length)
        whole = dict.fromkeys((*settings.modules_to_save, EMBEDDING, NORMS))
        return LORA.apply(model, replace(settings, modules_to_save=tuple(whole)))

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the adapter, with embeddings and norms, and how long groups are."""
        LORA.save(model, directory, safe_serialization=safe_serialization)
        add_to_note(directory, group_length=group_length_of(model))

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Attach a saved adapter.

        Raises:
            ModelError: the adapter is incomplete, damaged, or made for another model.
        """
        if trainable:
            enable_shifted_attention(model, read_note(directory).get("group_length"))
        return LORA.load(model, directory, trainable=trainable)

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Fold everything into the weights.

        Raises:
            ModelError: the base is quantized, or the adapter holds numbers that aren't finite.
        """
        return LORA.merge(model)


LONGLORA = LongLoraTuner()
