"""Shifted sparse attention (S²-Attn; Chen et al. 2023, https://arxiv.org/abs/2309.12307), for training only.

Each document is cut into groups, and a token sees its predecessors in its own group. For half of the heads
the cuts lie half a group later, so that what they see crosses the cuts of the others. The first half group of
those heads is a group of its own, where the paper lets it wrap around: no token sees a later one.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import AttentionMaskInterface

from ft_core.errors import UsageError
from ft_core.sequences import attention as documents

NAME = "ft_shifted"
"""The implementation's name in ``config._attn_implementation``; the length of groups may follow."""


def enable_shifted_attention(model: PreTrainedModel, group_length: int | None) -> None:
    """Let a model attend by shifted groups while it is trained, and to everything else otherwise.

    Rows that are joined stay apart: groups are made inside each document.

    Args:
        model: attends by SDPA.
        group_length: tokens of a group; ``None`` makes it a quarter of each document.

    Raises:
        UsageError: the model attends in another way.
    """
    before = str(model.config._attn_implementation)
    if before not in ("sdpa", documents.NAME) and not before.startswith(NAME):
        raise UsageError(
            f"--sft_type longlora attends by torch's SDPA, and this model attends by {before}; leave --use_flash_attn "
            "out, or use --sft_type lora"
        )
    name = NAME if group_length is None else f"{NAME}_{group_length}"
    attend = functools.partial(shifted_attention, group_length=group_length)
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, documents.joined_mask)
    model.set_attn_implementation(name)


def group_length_of(model: PreTrainedModel) -> int | None:
    """Return the length of groups that ``enable_shifted_attention`` was given."""
    number = str(model.config._attn_implementation).removeprefix(NAME).removeprefix("_")
    return int(number) if number.isdigit() else None


def shifted_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    group_length: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend by shifted groups in training, by documents otherwise.

    Args:
        module: the attention layer.
        query: [B, heads, T, head size].
        key: [B, key heads, T, head size].
        value: as ``key``.
        attention_mask: as ``ft_core.sequences.attention.joined_mask`` makes it.
        dropout: of attention weights.
        scaling: of the scores.
        group_length: tokens of a group; ``None`` makes it a quarter of each document.
        **options: what else the layer passes.

    Returns:
        [B, T, heads, head size], and no weights.
    """
    if not module.training:
        return documents.joined_attention(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    times = query.shape[1] // key.shape[1]
    if times > 1:
        key, value = repeat_kv(key, times), repeat_kv(value, times)
    half = query.shape[1] // 2
    parts = []
    for heads, shifted in ((slice(half), False), (slice(half, None), True)):
        mask = _grouped(attention_mask, query, group_length, shifted=shifted)
        own = (query[:, heads], key[:, heads], value[:, heads])
        if mask.dtype == torch.int32:
            part, _ = documents.joined_attention(
                module, *own, mask, dropout=dropout, scaling=scaling, **options
            )
        else:
            part = scaled_dot_product_attention(
                *own, attn_mask=mask, dropout_p=dropout, scale=scaling
            ).transpose(1, 2)
        parts.append(part)
    return torch.cat(parts, dim=2), None


def group_starts(start: int, end: int, group_length: int | None, *, shifted: bool) -> list[int]:
    """Return where the groups of a document begin.

    Args:
        start: of the document.
        end: of the document, exclusive.
        group_length: tokens of a group; ``None`` makes it a quarter of the document.
        shifted: whether the cuts lie half a group later.
    """
    length = math.ceil((end - start) / 4) if group_length is None else group_length
    first = start + max(1, length // 2) if shifted else start + length
    return [start, *range(first, end, length)]


def _grouped(
    mask: torch.Tensor | None, query: torch.Tensor, group_length: int | None, *, shifted: bool
) -> torch.Tensor:
    """Return a mask that also keeps groups apart, in the form of the one that is given."""
    length = query.shape[2]
    if mask is None or mask.dtype == torch.int32:
        starts = [0] if mask is None else mask[0, 0, 0].tolist()
        window = 0 if mask is None else int(mask[0, 0, 1, 0])
        bounds = [*starts, length]
        groups = [
            place
            for start, end in pairwise(bounds)
            for place in group_starts(start, end, group_length, shifted=shifted)
        ]
        described = torch.tensor([groups, [window] * len(groups)], dtype=torch.int32)
        if mask is None and len(query) > 1:
            return _dense(groups, length, query.device)
        return described[None, None]
    groups = group_starts(0, length, group_length, shifted=shifted)
    apart = _dense(groups, length, query.device)
    return mask & apart if mask.dtype == torch.bool else mask.masked_fill(~apart, -math.inf)


def _dense(groups: list[int], length: int, device: torch.device) -> torch.Tensor:
    """Return which tokens see which, [1, 1, T, T]."""
    begins = torch.zeros(length, dtype=torch.long, device=device)
    begins[groups] = 1
    group = begins.cumsum(0)
    return ((group[:, None] == group) & torch.ones_like(group[:, None] == group).tril())[None, None]
