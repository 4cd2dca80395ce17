"""A linear layer with a LoRA adapter that computes what peft's computes, with fewer passes over memory.

peft applies dropout, two products, a scaling and an addition as operations of their own, each of which writes a
tensor as large as its input or output, and most of which autograd keeps. Here the update is one operation: what goes
in is kept once (layers that read the same tensor share it) with one byte a value for dropout, and the update is added
to the layer's output in place.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora.layer import Linear as PeftLinear
from transformers import PreTrainedModel

from ft_core.tuners.lora.low_rank import low_rank_update

_STEPS = 1 << 16
"""Dropout on CPUs draws 16 bits for each value: its probability is right to 1/65536, and exact in the mean."""


class LeanLinear(PeftLinear):  # type: ignore[misc]
    """peft's layer; where it holds one plain adapter, that is computed by ``low_rank_update``."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output [..., out] with the adapter's update."""
        name = None if args or kwargs else self._plain_adapter()
        if name is None:
            result: torch.Tensor = super().forward(x, *args, **kwargs)
            return result
        dropout = self.lora_dropout[name]
        rate = float(dropout.p) if self.training and isinstance(dropout, torch.nn.Dropout) else 0.0
        scale, keep = float(self.scaling[name]), None
        if rate:
            mask = _MASKS.mask_for(self, x, rate)
            # What is kept grows by the probability's inverse, and so may the update of it.
            scale, keep = scale / mask.probability, mask.keep
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return low_rank_update(self.base_layer(x), x, a, b, scale, keep)

    def _plain_adapter(self) -> str | None:
        """Return the name of the one adapter that is in use, if its update is the plain product."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1:
            return None
        name = str(names[0])
        # A process that holds a part of the weights only (ZeRO-3) gathers them in each layer's own forward.
        whole = self.lora_A[name].weight.numel() > 0
        plain = name not in self.lora_variant and self.lora_B[name].bias is None
        return name if whole and plain else None


def use_lean_layers(config: PeftConfig, model: PreTrainedModel) -> None:
    """Have peft adapt plain linear layers by ``LeanLinear``.

    Args:
        config: of the adapter; any but plain LoRA's is left alone.
        model: the plain model; quantized layers have layers of their own in peft.
    """
    quantized = getattr(model.config, "quantization_config", None) is not None
    if type(config) is LoraConfig and not (quantized or config.fan_in_fan_out or config.use_dora):
        config._register_custom_module({torch.nn.Linear: LeanLinear})


@dataclass(frozen=True, slots=True)
class DropoutMask:
    """Which values of a layer's input dropout keeps.

    Attributes:
        keep: ones where values are kept and zeros elsewhere, as bytes [T, in]; they multiply faster than booleans.
        probability: exactly that with which values are kept.
    """

    keep: torch.Tensor
    probability: float


def draw_mask(x: torch.Tensor, rate: float) -> DropoutMask:
    """Draw a mask for an input [..., in] by torch's default random state; ``rate`` of its values are dropped."""
    count, width = x.numel(), x.shape[-1]
    if x.device.type != "cpu":
        keep = torch.empty(count // width, width, dtype=torch.uint8, device=x.device)
        return DropoutMask(keep.bernoulli_(1 - rate), 1 - rate)
    kept = round((1 - rate) * _STEPS)
    # A word gives four values; torch's own bernoulli_ takes 4 times as long.
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[:count].view(-1, width)
    return DropoutMask((drawn < kept - _STEPS // 2).view(torch.uint8), kept / _STEPS)


class SharedMasks:
    """Masks that layers share which read the same tensor one after another: queries, keys and values, say.

    Each layer's update sees its input with dropout, as in the paper; a mask for each would cost as often as much.
    """

    def __init__(self) -> None:
        self._input: weakref.ref[torch.Tensor] | None = None
        self._rate = 0.0
        self._readers: set[int] = set()
        self._mask: DropoutMask | None = None

    def mask_for(self, layer: torch.nn.Module, x: torch.Tensor, rate: float) -> DropoutMask:
        """Return the mask of an input; a layer that reads the same one again gets a new one."""
        same = self._input is not None and self._input() is x and self._rate == rate
        if self._mask is None or not same or id(layer) in self._readers:
            self._input, self._rate, self._readers = weakref.ref(x), rate, set()
            self._mask = draw_mask(x, rate)
        self._readers.add(id(layer))
        return self._mask


_MASKS = SharedMasks()
