"""Attention for one new token of each row, with few key heads for many query heads.

transformers repeats keys and values for every query head as soon as there is a mask, which copies the whole
cache in every step of a batch with rows of different lengths. The queries that share a key head can stand in
for the positions of one head instead, and nothing is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "ft_rows"
"""The implementation's name in ``config._attn_implementation``."""


def attend_by_rows(model: PreTrainedModel) -> str:
    """Switch a model that attends by SDPA to this attention; other models are left alone.

    Returns:
        What the model used before; pass it to ``model.set_attn_implementation`` to go back.
    """
    before = str(model.config._attn_implementation)
    if before == "sdpa":
        AttentionInterface.register(NAME, rows_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    return before


def rows_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as SDPA does.

    Args:
        module: the attention layer.
        query: shape (rows, heads, new columns, head size).
        key: shape (rows, key heads, columns, head size).
        value: of the same shape.
        attention_mask: what may be seen, shape (rows, 1, new columns, columns); ``None`` means all.
        dropout: none while answering.
        scaling: of the scores.
        **settings: what only other shapes need.

    Returns:
        Shape (rows, new columns, heads, head size), and no weights.
    """
    rows, heads, new, size = query.shape
    key_heads = key.shape[1]
    one_mask = attention_mask is None or attention_mask.shape[1] == 1
    if new != 1 or key_heads == heads or not one_mask or settings.get("position_bias") is not None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **settings
        )
        return output
    shared = query.view(rows, key_heads, heads // key_heads, size)
    attended = scaled_dot_product_attention(
        shared, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return attended.reshape(rows, 1, heads, value.shape[-1]), None
