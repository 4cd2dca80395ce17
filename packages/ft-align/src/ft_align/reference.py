"""The frozen model that answers are compared with: the adapter switched off, or a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper

from ft_align.shared_prompts import enable_shared_prompts
from ft_core.sequences import Layout, enable_joined_attention, layout_for
from ft_core.sequences.isolation import language_model


class AdapterOff(torch.nn.Module):
    """A model as it is without its adapter: the reference that takes no memory.

    Args:
        model: with an adapter of peft.
    """

    def __init__(self, model: PeftModel) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, **inputs: Any) -> Any:
        """Call the base model, without dropout."""
        with evaluating(self.model), self.model.disable_adapter():
            return self.model(**inputs)


class Frozen(torch.nn.Module):
    """A model that is never trained.

    Args:
        model: any causal language model; it is put into evaluation mode for good.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        if not enable_shared_prompts(model) and layout_for(model) is Layout.JOINED:
            enable_joined_attention(language_model(model))

    @property
    def gib(self) -> float:
        """The memory its weights take, in GiB."""
        return sum(item.numel() * item.element_size() for item in self.parameters()) / 2**30

    @torch.no_grad()
    def forward(self, **inputs: Any) -> Any:
        """Call the model."""
        return self.model(**inputs)


def adapter_off(model: torch.nn.Module) -> AdapterOff | None:
    """Return the model without its adapter as a reference, if switching it off gives the base exactly.

    It doesn't where weights of the base are trained too (all of them, biases, new blocks), or where the
    adapter began with a part of them (PiSSA, CorDA, OLoRA).
    """
    if not isinstance(model, PeftModel):
        return None
    for config in model.peft_config.values():
        if isinstance(config, LoraConfig) and (
            config.bias != "none"
            or config.init_lora_weights not in (True, False, "gaussian", "eva", "orthogonal")
        ):
            return None
    switched = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        for parameter in module.parameters()
    }
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return AdapterOff(model) if all(id(item) in switched for item in trained) else None


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Have a model compute without dropout, and put its mode back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
