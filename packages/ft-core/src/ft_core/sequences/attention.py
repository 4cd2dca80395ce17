"""Attention for joined rows: causal attention inside each document, without a dense mask.

transformers describes what a token may see as a function of two positions and lets each attention
implementation make what it needs of it. Here that is the list of places where documents begin, found
by asking the function about neighbours, so every architecture that builds its masks this way is served,
sliding windows included. Whatever has no such form (padding, a cache, tokens that see their successors)
gets the dense mask of the ordinary implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import (
    repeat_kv,
    sdpa_attention_forward,
    use_gqa_in_sdpa,
)
from transformers.masking_utils import (
    AttentionMaskInterface,
    causal_mask_function,
    sdpa_mask,
)

from ft_core.errors import ModelError
from ft_core.sequences.causal import can_attend, causal_attention
from ft_core.sequences.flash import attend_documents, can_attend_documents

NAME = "ft_joined"
"""The implementation's name in ``config._attn_implementation``."""

_MaskFunction = Callable[[Any, Any, Any, Any], torch.Tensor]


def enable_joined_attention(model: PreTrainedModel) -> str:
    """Switch a model that attends by SDPA to attention by documents.

    Rows that are not joined give the same results as before, so the model stays usable for anything.

    Returns:
        The implementation the model used before; pass it to ``model.set_attn_implementation`` to go
        back. A model that attends in another way (eager, flash) is left alone.
    """
    before = str(model.config._attn_implementation)
    if before == "sdpa":
        register()
        model.set_attn_implementation(NAME)
    return before


def register() -> None:
    """Make the implementation known to transformers; repeating it changes nothing."""
    AttentionInterface.register(NAME, joined_attention)
    AttentionMaskInterface.register(NAME, joined_mask)


def joined_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: _MaskFunction = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> torch.Tensor | None:
    """Describe which tokens see which, in the form ``joined_attention`` takes.

    Returns:
        ``None`` for one causal document; for several an int32 tensor [1, 1, 2, D] on the CPU of where each
        document begins and of its window (0 sees all of it); otherwise a dense boolean mask.
    """
    square = batch_size == 1 and 1 < q_length == kv_length and q_offset == kv_offset == 0
    if square and attention_mask is None and not use_vmap:
        blocks = _find_blocks(mask_function, q_length, local_size, torch.device(device))
        if blocks is not None:
            starts, window = blocks
            if len(starts) == 1 and window == 0:
                return None
            described = torch.stack([starts, torch.full_like(starts, window)])
            # Every layer reads it on the processor: from there, it waits for no GPU.
            return described.to("cpu", torch.int32)[None, None]
    mask: torch.Tensor | None = sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        use_vmap=use_vmap,
        device=device,
        **options,
    )
    return mask


def _find_blocks(
    mask_function: _MaskFunction, length: int, local_size: int | None, device: torch.device
) -> tuple[torch.Tensor, int] | None:
    """Find where documents begin and the window inside them; ``None`` if the rule has no such form.

    What a token sees is taken to be an unbroken run that ends with itself, as with all of transformers'
    own mask functions; both ends of the run are asked for, so a rule of another form is found out.
    """
    place = torch.arange(length, device=device)
    zero = place.new_zeros(())

    def sees(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return mask_function(zero, zero, query, key).expand(len(query))

    if not bool(sees(place, place).all()) or bool(sees(place[:-1], place[1:]).any()):
        return None
    begins = torch.cat([place.new_ones(1, dtype=torch.bool), ~sees(place[1:], place[:-1])])
    starts = begins.nonzero()[:, 0]
    own_start = starts[begins.cumsum(0) - 1]
    if bool(sees(place, own_start).all()):
        return starts, 0
    if local_size is None:
        return None
    first = torch.maximum(own_start, place - local_size + 1)
    cut = first > own_start
    if bool(sees(place, first).all()) and not bool(sees(place[cut], first[cut] - 1).any()):
        return starts, local_size
    return None


def joined_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each document of a joined row.

    Args:
        module: the attention layer.
        query: [1, heads, T, head size].
        key: [1, key heads, T, head size].
        value: as ``key``.
        attention_mask: what ``joined_mask`` made; anything but its int32 form goes to transformers'
            SDPA attention unchanged.
        dropout: of attention weights.
        scaling: of the scores; ``None`` divides by the square root of the head size.
        **options: what else the layer passes; SDPA ignores it too.

    Returns:
        [1, T, heads, head size], and no weights.
    """
    causal = attention_mask is None and getattr(module, "is_causal", True)
    if causal and "is_causal" not in options and can_attend(query, key, value, dropout):
        return causal_attention(query, key, value, scaling).transpose(1, 2), None
    if attention_mask is None or attention_mask.dtype != torch.int32:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            **options,
        )
        return result
    if options.get("position_bias") is not None:
        raise ModelError(
            f"{type(module).__name__} adds a bias to attention scores, which {NAME} can't split by document"
        )
    starts: list[int] = attention_mask[0, 0, 0].tolist()
    window = int(attention_mask[0, 0, 1, 0])
    ends = [*starts[1:], query.shape[2]]
    if can_attend_documents(query, value, dropout):
        return attend_documents(query, key, value, ends, window, scaling), None
    grouped = query.shape[1] != key.shape[1] and use_gqa_in_sdpa(None, key, value)
    if query.shape[1] != key.shape[1] and not grouped:
        key, value = _repeat(query, key), _repeat(query, value)
    pieces = []
    for start, end in zip(starts, ends, strict=True):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        mask = _window_mask(end - start, window, query.device)
        if mask is None and can_attend(q, k, v, dropout):
            pieces.append(causal_attention(q, k, v, scaling).transpose(1, 2))
            continue
        if mask is not None and grouped:
            k, v = _repeat(q, k), _repeat(q, v)
        pieces.append(
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=grouped and mask is None,
            ).transpose(1, 2)
        )
    return torch.cat(pieces, dim=1), None


def _repeat(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    repeated: torch.Tensor = repeat_kv(key, query.shape[1] // key.shape[1])
    return repeated


def _window_mask(length: int, window: int, device: torch.device) -> torch.Tensor | None:
    """Return the banded mask [L, L] of a document longer than the window, else ``None``."""
    if window == 0 or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril() & ones.triu(1 - window)
