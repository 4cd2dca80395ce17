"""How much memory training takes, estimated from the model itself.

The activations of a transformer layer are counted as in Korthikanti et al. 2022
(https://arxiv.org/abs/2205.05198), without the attention matrices that fused attention never stores.
Measured with SmolLM2-135M in float32 on a CPU, LoRA and full, 256 to 2048 tokens: within 10 % of the peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ft_core.models.modules import linear_names
from ft_core.models.remote_code import check_remote_code

_ACTIVATION_VALUES = 19
"""Values kept for the backward pass per token and hidden unit of a layer, as autograd saves them for Llama."""

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
        logits: scores of the trained tokens, their softmax and gradient.
        recomputed: activations that are kept with gradient checkpointing.
        process: what the process holds besides; 0 on a GPU.
        free: what the device has free for all of it.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    recomputed: int
    process: int
    free: int

    @property
    def total(self) -> int:
        """The sum, without gradient checkpointing."""
        batch = self.activations + self.logits
        return self.process + self.weights + self.gradients + self.optimizer + batch

    @property
    def needs_checkpointing(self) -> bool:
        """Whether activations should be computed anew in the backward pass to fit."""
        return self.total - self.process > _SHARE * self.free

    def lines(self) -> list[str]:
        """Describe the estimate, one line."""
        parts = ("weights", "gradients", "optimizer", "activations", "logits", "process")
        each = ", ".join(f"{name} {getattr(self, name) / 2**30:.2f}" for name in parts)
        return [
            f"memory     about {self.total / 2**30:.2f} GiB of {self.free / 2**30:.1f} free ({each})"
        ]


def estimate_training(
    model: PreTrainedModel,
    *,
    tokens: int,
    trained: int,
    device: str,
    loaded: bool = False,
    weight_bits: int | None = None,
) -> MemoryEstimate:
    """Estimate the memory of training a model whose trainable part is attached.

    Args:
        model: may be on torch's meta device, where it holds no memory.
        tokens: of the largest micro-batch.
        trained: of those, the tokens that carry loss.
        device: where it trains.
        loaded: whether the weights are in the device's memory already, so that what is free excludes them.
        weight_bits: of the linear layers once they are loaded quantized; ``None`` where they aren't.
    """
    weights = _weight_bytes(model, None if loaded else weight_bits)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    config = model.config.get_text_config()
    size = next(model.parameters()).element_size()
    on_cpu = device.startswith("cpu")
    waste = _CPU_WASTE if on_cpu else 1.0
    values = round(tokens * int(config.num_hidden_layers) * int(config.hidden_size) * waste)
    return MemoryEstimate(
        weights=weights,
        gradients=sum(parameter.numel() * parameter.element_size() for parameter in trainable),
        optimizer=sum(parameter.numel() * 8 for parameter in trainable),
        activations=values * _ACTIVATION_VALUES * size,
        # Softmax and its gradient in float32, and the gradient of the scores in their own type.
        logits=round(trained * int(config.vocab_size) * (8 + size) * waste),
        recomputed=values * size,
        process=max(0, resident_memory() - (weights if loaded else 0)) if on_cpu else 0,
        free=free_memory(device) + (weights if loaded else 0),
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
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status names no VmRSS")


def free_memory(device: str) -> int:
    """Return the bytes free on a GPU, or the memory the system can still give."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo names no MemAvailable")


def meta_model(
    directory: Path, dtype: torch.dtype, *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return a model of a directory's configuration that has shapes but no weights.

    Raises:
        ModelError: it needs code of its own and ``trust_remote_code`` is false.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    check_remote_code(directory, str(directory), trusted=trust_remote_code)
    config = AutoConfig.from_pretrained(
        directory, local_files_only=True, trust_remote_code=trust_remote_code
    )
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code
        )
    return model
