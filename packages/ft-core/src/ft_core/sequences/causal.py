"""Causal attention of one document on a CPU: torch's forward pass with a backward pass of our own.

torch's fused kernel goes through the backward pass in small blocks of single heads. Query heads that share a key head
are one product here, of as many queries as the cache allows: two thirds of the time at 512 tokens. As in
FlashAttention-2 (https://arxiv.org/abs/2307.08691) only the logarithm of each row's sum is kept, and probabilities
are computed anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

_BLOCK = 64
"""Queries of each head that are worked on together."""

_SHORTEST = 192
"""Below this length torch's own backward pass is as fast."""


def can_attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """Return whether ``causal_attention`` serves these tensors, and somebody will want gradients.

    Half precision is left to torch, whose kernel holds scores in float32.
    """
    return (
        torch.is_grad_enabled()
        and query.requires_grad
        and query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype == torch.float32
        and query.shape[0] == 1
        and _SHORTEST <= query.shape[2] == key.shape[2]
        and query.shape[3] == value.shape[3]
        and dropout == 0
    )


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    """Return what ``scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)`` returns.

    Args:
        query: [1, heads, T, head size].
        key: [1, key heads, T, head size]; a key head serves heads that follow one another.
        value: as ``key``.
        scale: of the scores; ``None`` divides by the square root of the head size.

    Returns:
        [1, heads, T, head size].
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    output: torch.Tensor = _CausalAttention.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return output


class _CausalAttention(torch.autograd.Function):
    """``causal_attention`` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        output: torch.Tensor
        output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, True, scale=scale
        )
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.scale = scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, output, sums = ctx.saved_tensors
        means = (gradient * output).sum(-1)
        heads = query.shape[1] // key.shape[1]
        for_query = torch.empty_like(query, memory_format=torch.contiguous_format)
        for_key = torch.zeros_like(key, memory_format=torch.contiguous_format)
        for_value = torch.zeros_like(value, memory_format=torch.contiguous_format)
        for number in range(key.shape[1]):
            shared = slice(number * heads, number * heads + heads)
            _add_slopes(
                (query[0, shared], key[0, number].contiguous(), value[0, number].contiguous()),
                (gradient[0, shared], sums[0, shared], means[0, shared]),
                (for_query[0, shared], for_key[0, number], for_value[0, number]),
                ctx.scale,
            )
        return for_query, for_key, for_value, None


def _add_slopes(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    known: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    results: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    scale: float,
) -> None:
    """Go through the backward pass of the G heads that share a key head, a block of queries at a time.

    Args:
        inputs: queries [G, T, D], keys [T, D] and values [T, D].
        known: the output's gradient [G, T, D]; the logarithm of each row's sum, and the mean of its
            probabilities' gradients, [G, T] both.
        results: get the gradients of ``inputs``.
        scale: of the scores.
    """
    (queries, keys, values), (slopes, logs, means) = inputs, known
    for_query, for_key, for_value = results
    heads, length, size = queries.shape
    past = torch.ones(_BLOCK, _BLOCK).tril()
    for start in range(0, length, _BLOCK):
        end = min(length, start + _BLOCK)
        rows, seen = slice(start, end), slice(0, end)
        q, slope = queries[:, rows].reshape(-1, size) * scale, slopes[:, rows].reshape(-1, size)
        p = torch.addmm(logs[:, rows].reshape(-1, 1), q, keys[seen].mT, beta=-1).exp_()
        p.view(heads, -1, end)[..., start:].mul_(past[: end - start, : end - start])
        for_value[seen].addmm_(p.mT, slope)
        s = torch.addmm(means[:, rows].reshape(-1, 1), slope, values[seen].mT, beta=-1).mul_(p)
        for_query[:, rows] = (s @ keys[seen]).mul_(scale).view(heads, -1, size)
        for_key[seen].addmm_(s.mT, q)
