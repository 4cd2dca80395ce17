"""LLaMA Pro: a checkpoint is a whole, deeper model that plain transformers loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ft_core.errors import ModelError
from ft_core.models.groups import module_groups
from ft_core.tuners.full.tuner import FULL
from ft_core.tuners.llamapro.blocks import grow
from ft_core.tuners.llamapro.settings import LlamaProSettings
from ft_core.tuners.note import add_to_note, read_note


@dataclass(frozen=True, slots=True)
class LlamaProTuner:
    """Trains new blocks between those of the model."""

    name: str = "llamapro"

    def apply(self, model: PreTrainedModel, settings: LlamaProSettings) -> PreTrainedModel:
        """Put new blocks into the model and freeze everything else; its answers don't change at first.

        A model that was loaded from a checkpoint of this tuner has them: training goes on with these.

        Raises:
            UsageError: the model has too few blocks.
            ModelError: its weights are fp16 or quantized, or its layers can't be copied.
        """
        if getattr(model.config, "quantization_config", None) is not None:
            raise ModelError(
                "copies of quantized blocks can't be trained; use --sft_type lora, or the unquantized model"
            )
        if model.dtype == torch.float16:
            raise ModelError(
                "blocks that are trained can't be fp16; load the model with --dtype bf16 or fp32"
            )
        known = read_note(Path(model.name_or_path)) if model.name_or_path else {}
        places = known["new_blocks"] if "new_blocks" in known else grow(model, settings)
        model.requires_grad_(False)
        layers = module_groups(model).layers
        for place in places:
            model.get_submodule(layers[place]).requires_grad_(True)
        return model

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the whole model, and which of its blocks are new."""
        FULL.save(model, directory, safe_serialization=safe_serialization)
        layers = module_groups(model).layers
        new = [
            place
            for place, name in enumerate(layers)
            if all(parameter.requires_grad for parameter in model.get_submodule(name).parameters())
        ]
        add_to_note(directory, new_blocks=new)

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Return the model of a checkpoint; ``model`` gives its data type and device.

        Raises:
            ModelError: the checkpoint is incomplete or damaged.
        """
        from ft_core.models.loading import load_model

        grown = load_model(
            directory, dtype=model.dtype, device=model.device, for_training=trainable
        )
        return self.apply(grown, LlamaProSettings()) if trainable else grown

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model: it is whole already."""
        return model


LLAMAPRO = LlamaProTuner()
