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
        mask = _MASKS.mask_for(self, x, rate) if rate else None
        return low_rank_update(
            self.base_layer(x),
            x,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            float(self.scaling[name]),
            mask,
        )

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


def low_rank_update(
    result: torch.Tensor,
    x: torch.Tensor,
    matrix_a: torch.Tensor,
    matrix_b: torch.Tensor,
    scale: float,
    mask: DropoutMask | None = None,
) -> torch.Tensor:
    """Return ``result + scale * dropout(x) A^T B^T`` (https://arxiv.org/abs/2106.09685), in place where it can be.

    Args:
        result: output of the layer [..., out]; nobody else may need it.
        x: its input [..., in].
        matrix_a: [r, in].
        matrix_b: [out, r].
        scale: of the update.
        mask: which values of ``x`` are kept; they grow by the probability's inverse.
    """
    keep = None
    if mask is not None:
        keep, scale = mask.keep, scale / mask.probability
    updated: torch.Tensor = _LowRankUpdate.apply(result, x, matrix_a, matrix_b, scale, keep)  # type: ignore[no-untyped-call]
    return updated


class _LowRankUpdate(torch.autograd.Function):
    """``low_rank_update`` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        matrix_a: torch.Tensor,
        matrix_b: torch.Tensor,
        scale: float,
        keep: torch.Tensor | None,
    ) -> torch.Tensor:
        dtype = _compute_dtype(matrix_a)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        ctx.scale = scale
        dropped = flat if keep is None else flat * keep
        a, b = matrix_a.to(dtype), matrix_b.to(dtype)
        narrow = a @ dropped.T  # [r, T]: products with few rows are the fast ones on CPUs
        ctx.save_for_backward(x, keep, matrix_a, matrix_b, narrow)
        ctx.dtype = dtype
        wide = result.view(-1, result.shape[-1])
        if wide.dtype == dtype:
            wide.addmm_(narrow.T, b.T, alpha=ctx.scale)
        else:
            wide.add_((narrow.T @ b.T).to(wide.dtype), alpha=ctx.scale)
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        x, keep, matrix_a, matrix_b, narrow = ctx.saved_tensors
        wide = gradient.reshape(-1, gradient.shape[-1]).to(ctx.dtype)
        slope = (matrix_b.to(ctx.dtype).T @ wide.T).mul_(ctx.scale)  # [r, T]
        for_a = for_b = for_x = None
        if ctx.needs_input_grad[3]:
            for_b = (narrow @ wide).mul_(ctx.scale).T.to(matrix_b.dtype)
        if ctx.needs_input_grad[2]:
            flat = x.reshape(-1, x.shape[-1]).to(ctx.dtype)
            for_a = (slope @ (flat if keep is None else flat * keep)).to(matrix_a.dtype)
        if ctx.needs_input_grad[1]:
            back = slope.T @ matrix_a.to(ctx.dtype)
            for_x = (back if keep is None else back.mul_(keep)).to(x.dtype).view(x.shape)
        return gradient, for_x, for_a, for_b, None, None


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


def _compute_dtype(matrix: torch.Tensor) -> torch.dtype:
    """Return the type that autocast computes in here, else the adapter's own."""
    kind = matrix.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else matrix.dtype
