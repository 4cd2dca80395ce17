"""Causal attention of all documents of a joined row by one kernel, on GPUs.

torch brings FlashAttention-2 (https://arxiv.org/abs/2307.08691) for documents of different lengths, so no other
package is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn

_LARGEST_HEAD = 256
_TAKES_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters


def can_attend_documents(query: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """Return whether ``attend_documents`` serves tensors like these: on a GPU, in half precision, without dropout."""
    size = query.shape[-1]
    return (
        query.device.type == "cuda"
        and dropout == 0
        and _compute_dtype(query) in (torch.bfloat16, torch.float16)
        and size == value.shape[-1] <= _LARGEST_HEAD
        and size % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def attend_documents(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: Sequence[int],
    window: int = 0,
    scale: float | None = None,
) -> torch.Tensor:
    """Attend inside each document of a row.

    Args:
        query: [1, heads, T, head size].
        key: [1, key heads, T, head size]; a key head serves heads that follow one another.
        value: as ``key``.
        ends: of the documents, T last.
        window: how many tokens a token sees, itself among them; 0 sees the document up to itself.
        scale: of the scores; ``None`` divides by the square root of the head size.

    Returns:
        [1, T, heads, head size].
    """
    dtype = _compute_dtype(query)
    q, k, v = (tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value))
    options: dict[str, Any] = {}
    if _TAKES_GROUPS:
        options["enable_gqa"] = True
    elif q.shape[1] != k.shape[1]:
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    borders, longest = _borders(tuple(ends), query.device)
    attended: Any = varlen_attn(
        *(q, k, v, borders, borders, longest, longest),
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
        **options,
    )
    output: torch.Tensor = attended[None]
    return output


def _compute_dtype(query: torch.Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(query.device.type):
        return torch.get_autocast_dtype(query.device.type)
    return query.dtype


@lru_cache(maxsize=16)
def _borders(ends: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, int]:
    """Return int32 [D + 1] of where documents end and begin, and the longest one's length; layers share them."""
    begins = (0, *ends[:-1])
    longest = max(end - start for start, end in zip(begins, ends, strict=True))
    with torch.inference_mode(False):  # or the backward pass could not keep it
        return torch.tensor((0, *ends), dtype=torch.int32, device=device), longest
