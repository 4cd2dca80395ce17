"""The weights themselves are trained, all or some; a checkpoint is a whole model that plain transformers loads."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ft_core.errors import ModelError, UsageError
from ft_core.tuners.full.settings import FullSettings


class FullTuner:
    """Trains the weights of the model."""

    name = "full"

    def apply(self, model: PreTrainedModel, settings: FullSettings) -> PreTrainedModel:
        """Return the model with gradients on for all weights but those that are frozen.

        Raises:
            ModelError: its weights are fp16, in which small steps vanish, or quantized.
            UsageError: nothing is left to train, or no parameter has a name that is given.
        """
        if getattr(model.config, "quantization_config", None) is not None:
            raise ModelError(
                "quantized weights can't be trained; use --sft_type lora, or the unquantized model"
            )
        if model.dtype == torch.float16:
            raise ModelError(
                "weights that are all trained can't be fp16; load the model with --dtype bf16 or fp32"
            )
        model.requires_grad_(True)
        _freeze(model, settings)
        return model

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the weights and the configuration."""
        transformers_logging.disable_progress_bar()  # a command has a progress line of its own
        model.save_pretrained(directory)
        if not safe_serialization:
            _pickle(model, directory)

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Replace the model's weights by those of a checkpoint.

        Raises:
            ModelError: the checkpoint holds another model.
        """
        from ft_core.models.loading import load_model

        saved = load_model(
            directory, dtype=model.dtype, device=model.device, for_training=trainable
        )
        try:
            model.load_state_dict(saved.state_dict())
        except RuntimeError as error:
            raise ModelError(f"the weights in {directory} don't fit the model: {error}") from error
        model.train(trainable)
        return model.requires_grad_(trainable)

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model: it is whole already."""
        return model


def _freeze(model: PreTrainedModel, settings: FullSettings) -> None:
    """Freeze the parameters whose cumulative count, in the model's order, is within the given share."""
    named = list(model.named_parameters())
    quota = int(sum(parameter.numel() for _, parameter in named) * settings.freeze_parameters)
    for _, parameter in named:
        quota -= parameter.numel()
        if quota < 0:
            break
        parameter.requires_grad = False
    for start in settings.additional_trainable_parameters:
        # A tied head is the embedding by another name.
        found = [
            parameter
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if name.startswith(start)
        ]
        if not found:
            tops = dict.fromkeys(".".join(name.split(".")[:2]) for name, _ in named)
            raise UsageError(
                f"--additional_trainable_parameters {start}: no parameter's name begins so; they begin with "
                f"{', '.join(tops)}"
            )
        for parameter in found:
            parameter.requires_grad = True
    if settings.new_token_ids and not model.get_input_embeddings().weight.requires_grad:
        raise UsageError(
            f"--new_special_tokens and --freeze_parameters {settings.freeze_parameters:g}: the embedding is frozen, so new "
            "tokens would stay as they are; name it with --additional_trainable_parameters"
        )
    if not any(parameter.requires_grad for _, parameter in named):
        raise UsageError(
            f"--freeze_parameters {settings.freeze_parameters:g} leaves nothing to train; give less, or name what is "
            "trained with --additional_trainable_parameters"
        )


def _pickle(model: PreTrainedModel, directory: Path) -> None:
    """Replace the safetensors that transformers wrote by one ``pytorch_model.bin``."""
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    torch.save(weights, directory / "pytorch_model.bin")
    for file in (
        *directory.glob("model*.safetensors"),
        *directory.glob("model.safetensors.index.json"),
    ):
        file.unlink()


FULL = FullTuner()
