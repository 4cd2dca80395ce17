"""How much memory training takes, estimated from the model itself.

The activations of a transformer layer are counted as in Korthikanti et al. 2022
(https://arxiv.org/abs/2205.05198), without the attention matrices that fused attention never stores.
``benchmarks/memory.py`` compares estimates with what runs take.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ft_core.models.classes import auto_class
from ft_core.models.modules import linear_names
from ft_core.models.remote_code import check_remote_code

_HIDDEN_VALUES = 8.3
"""Values kept for the backward pass per token and hidden unit of a layer, as autograd saves them for Llama: what
norms, attention and residuals see."""

_INNER_VALUES = 4
"""Values kept per token and unit between the two halves of a gated feed-forward layer."""

_CPU_WASTE = 1.33
"""What the C library's heap takes for tensors that come and go, over their own size (measured with glibc)."""

_SCALE_BYTES = 0.0625
"""Scale and offset of a group of 64 quantized weights in 16 bits, per weight."""

_SHARE = 0.8
"""Share of the free memory that an estimate may fill before activations are recomputed instead."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that training takes on one device.

    Attributes:
        weights: all parameters.
        gradients: of the trained parameters.
        optimizer: two float32 moments of each trained parameter.
        activations: kept from the forward to the backward pass of one micro-batch.
        logits: scores of the trained tokens; their gradient takes their place.
        recomputed: activations that are kept with gradient checkpointing.
        process: what the process holds besides; 0 on a GPU.
        free: what the device has free for all of it.
        accumulates: whether gradients of earlier micro-batches are held while the next one is computed.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    recomputed: int
    process: int
    free: int
    accumulates: bool = True

    @property
    def total(self) -> int:
        """The most that is held at once, without gradient checkpointing."""
        return self.peak(self.activations)

    def peak(self, activations: int) -> int:
        """Return the most that is held at once if so many bytes of activations are kept.

        Gradients are made while activations are given back, so of a single micro-batch the larger of both counts.
        """
        batch = activations + self.logits
        moving = self.gradients + batch if self.accumulates else max(self.gradients, batch)
        return self.process + self.weights + self.optimizer + moving

    @property
    def needs_checkpointing(self) -> bool:
        """Whether activations should be computed anew in the backward pass to fit."""
        return self.total - self.process > _SHARE * self.free

    def lines(self, *, checkpointing: bool = False) -> list[str]:
        """Describe the estimate, one line; with ``checkpointing`` that of a run that recomputes activations."""
        activations = self.recomputed if checkpointing else self.activations
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": activations,
            "logits": self.logits,
            "process": self.process,
        }
        each = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return [
            f"memory     about {self.peak(activations) / 2**30:.2f} GiB of {self.free / 2**30:.1f} free ({each})"
        ]


def estimate_training(
    model: PreTrainedModel,
    *,
    tokens: int,
    trained: int,
    device: str,
    loaded: bool = False,
    weight_bits: int | None = None,
    accumulates: bool = True,
) -> MemoryEstimate:
    """Estimate the memory of training a model whose trainable part is attached.

    Args:
        model: may be on torch's meta device, where it holds no memory.
        tokens: of the largest micro-batch.
        trained: of those, the tokens that carry loss.
        device: where it trains.
        loaded: whether the weights are in the device's memory already, so that what is free excludes them.
        weight_bits: of the linear layers once they are loaded quantized; ``None`` where they aren't.
        accumulates: whether a step has several micro-batches.
    """
    weights = _weight_bytes(model, None if loaded else weight_bits)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    config = model.config.get_text_config()
    size = next(model.parameters()).element_size()
    on_cpu = device.startswith("cpu")
    waste = _CPU_WASTE if on_cpu else 1.0
    layers, hidden = int(config.num_hidden_layers), int(config.hidden_size)
    layer = tokens * size * (_HIDDEN_VALUES * hidden + _INNER_VALUES * _inner_size(config))
    dropped = tokens * _dropout_bytes(model, 2 * size if on_cpu else size + 1)
    return MemoryEstimate(
        weights=weights,
        gradients=sum(parameter.numel() * parameter.element_size() for parameter in trainable),
        optimizer=sum(parameter.numel() * 8 for parameter in trainable),
        activations=round((layers * layer + dropped) * waste),
        logits=round(trained * int(config.vocab_size) * size * waste),
        recomputed=round((layers * tokens * hidden * size + layer + dropped / layers) * waste),
        process=max(0, resident_memory() - (weights if loaded else 0)) if on_cpu else 0,
        free=free_memory(device) + (weights if loaded else 0),
        accumulates=accumulates,
    )


def _inner_size(config: PreTrainedConfig) -> int:
    """Return the units between the halves of a feed-forward layer that a token goes through."""
    values = config.to_dict()
    inner = int(values.get("intermediate_size") or 4 * int(config.hidden_size))
    experts = values.get("num_experts_per_tok")
    if not experts:
        return inner
    return int(values.get("moe_intermediate_size") or inner) * int(experts)


def _dropout_bytes(model: PreTrainedModel, per_value: int) -> int:
    """Return the bytes per token that adapters keep for their dropout.

    Args:
        model: with its adapters.
        per_value: bytes of what peft's layers keep of a value: which were dropped, and what was left. Lean ones
            keep one, since what goes in is kept whole anyway.
    """
    from peft.tuners.lora import LoraLayer

    from ft_core.tuners.lora.lean import LeanLinear

    return sum(
        int(layer.in_features) * (1 if isinstance(layer, LeanLinear) else per_value)
        for layer in model.modules()
        if isinstance(layer, LoraLayer)
        and any(isinstance(item, torch.nn.Dropout) for item in layer.lora_dropout.values())
    )


def _weight_bytes(model: PreTrainedModel, weight_bits: int | None) -> int:
    """Return the bytes of all parameters, with linear layers in ``weight_bits`` where that is given."""
    total: int = sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters()
    )
    if weight_bits is None:
        return total
    for name in linear_names(model):
        # Adapters go around their layer, and are small and kept whole.
        weight = model.get_submodule(name).weight
        if isinstance(weight, torch.Tensor) and not weight.requires_grad:
            total -= int(weight.numel() * (weight.element_size() - weight_bits / 8 - _SCALE_BYTES))
    return total


def resident_memory() -> int:
    """Return the bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def free_memory(device: str) -> int:
    """Return the bytes free on a GPU, or the memory the system can still give."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def meta_model(
    directory: Path, dtype: torch.dtype, *, trust_remote_code: bool = False, scores: bool = False
) -> PreTrainedModel:
    """Return a model of a directory's configuration that has shapes but no weights.

    Raises:
        ModelError: it needs code of its own and ``trust_remote_code`` is false.
    """
    from transformers import AutoConfig

    check_remote_code(directory, str(directory), trusted=trust_remote_code)
    config = AutoConfig.from_pretrained(
        directory, local_files_only=True, trust_remote_code=trust_remote_code
    )
    if scores:
        config.num_labels = 1
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(config, scores=scores).from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code
        )
    return model
