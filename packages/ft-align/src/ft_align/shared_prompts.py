"""The prompt of a pair computed once: both answers see it, and neither sees the other.

A pair is laid out as prompt, chosen answer, rejected answer, with the positions of the rejected answer going
on from the prompt. Everything in a decoder but attention works on single tokens; attention gives each
answer the keys of its prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, use_gqa_in_sdpa
from transformers.masking_utils import AttentionMaskInterface

from ft_core.errors import ModelError
from ft_core.recipe import Batch
from ft_core.samples import Tokens
from ft_core.sequences import Layout, join, layout_for
from ft_core.sequences.attention import NAME as JOINED
from ft_core.sequences.attention import joined_attention, joined_mask
from ft_core.sequences.isolation import language_model, tiny_copy

NAME = f"{JOINED}_prompts"
"""The implementation's name in ``config._attn_implementation``; like ``ft_joined`` it serves joined rows too."""

Branch = tuple[int, int, int, int]
"""Where a document's own tokens start and end, where its prompt starts, and how long that is."""

_TOLERANCE = 1e-3
_WINDOW = 3


def enable_shared_prompts(model: torch.nn.Module) -> bool:
    """Let a model compute the prompt of a pair once, if it can.

    Whether it can is found by trying it on a tiny copy of its configuration. Rows without shared prompts give
    the same results as before.

    Args:
        model: a causal language model, possibly wrapped.

    Returns:
        Whether it does; if not, the model is as it was, and pairs are computed with a prompt each.
    """
    inner = language_model(model)
    if str(inner.config._attn_implementation) == NAME:
        return True
    if str(inner.config._attn_implementation) not in ("sdpa", JOINED):
        return False
    if layout_for(model) is not Layout.JOINED or not _works(inner):
        return False
    _switch(inner)
    return True


def shares_prompts(model: torch.nn.Module) -> bool:
    """Whether ``enable_shared_prompts`` was successful on the model."""
    return str(language_model(model).config._attn_implementation) == NAME


def share_prompts(batch: Batch) -> Batch:
    """Lay a joined batch out with each shared prompt once.

    Args:
        batch: as ``ft_core.sequences.join`` makes it, with ``shared`` [D]: how many tokens at the head of a
            document are those of the document before it.

    Returns:
        The same keys, with fewer tokens, ``targets`` that point to them, and ``attention``: what the
        model's attention must be told.
    """
    starts, lengths = batch["cu_seqlens"][:-1], batch["cu_seqlens"].diff()
    shared, places = batch["shared"], batch["position_ids"][0]
    owners = torch.arange(len(starts), device=starts.device).repeat_interleave(lengths)
    repeated = places < shared[owners]
    before = (owners - 1).clamp(min=0)
    everywhere = torch.arange(len(places), device=places.device)
    source = torch.where(repeated, starts[before] + places, everywhere)
    moved = ((~repeated).cumsum(0) - 1)[source]
    own = moved[starts + shared] if len(starts) else starts
    prompts = moved[starts[(torch.arange(len(starts), device=starts.device) - 1).clamp(min=0)]]
    prompts = torch.where(shared > 0, prompts, own)
    branches = torch.stack([own, own + lengths - shared, prompts, shared], dim=1).tolist()
    return {
        **batch,
        "input_ids": batch["input_ids"][:, ~repeated],
        "position_ids": batch["position_ids"][:, ~repeated],
        "targets": moved[batch["targets"]],
        "attention": {"branches": tuple(map(tuple, branches))},
    }


def attend_by_branches(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    branches: Sequence[Branch] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each document of a joined row, and from it to the prompt it shares.

    Args:
        module: the attention layer.
        query: [1, heads, T, head size].
        key: [1, key heads, T, head size].
        value: as ``key``.
        attention_mask: as ``joined_attention`` takes it, for rows without branches.
        branches: one for each document; ``None`` leaves all to ``joined_attention``.
        **options: what else the layer passes.

    Returns:
        [1, T, heads, head size], and no weights.
    """
    if branches is None:
        return joined_attention(module, query, key, value, attention_mask, **options)
    if options.get("position_bias") is not None:
        raise ModelError(
            f"{type(module).__name__} adds a bias to attention scores, which {NAME} can't split"
        )
    dropout, scaling = options.get("dropout", 0.0), options.get("scaling")
    window = options.get("sliding_window") or 0
    times = query.shape[1] // key.shape[1]
    grouped = times > 1 and use_gqa_in_sdpa(None, key, value)
    pieces = []
    for start, end, prompt_start, prompt in branches:
        q = query[:, :, start:end]
        k, v = (_seen(item, start, end, prompt_start, prompt) for item in (key, value))
        mask = _mask(end - start, prompt, window, query.device)
        by_group = grouped and mask is None
        if times > 1 and not by_group:
            k, v = repeat_kv(k, times), repeat_kv(v, times)
        piece = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=by_group,
        )
        pieces.append(piece.transpose(1, 2))
    return torch.cat(pieces, dim=1), None


def _seen(
    states: torch.Tensor, start: int, end: int, prompt_start: int, prompt: int
) -> torch.Tensor:
    own = states[:, :, start:end]
    if not prompt:
        return own
    return torch.cat([states[:, :, prompt_start : prompt_start + prompt], own], dim=2)


def _mask(length: int, prompt: int, window: int, device: torch.device) -> torch.Tensor | None:
    """Return what a document sees of its prompt and itself [L, P + L]; ``None`` where plain causal does."""
    cut = window and prompt + length > window
    if not prompt and not cut:
        return None
    ones = torch.ones(length, prompt + length, dtype=torch.bool, device=device)
    visible = ones.tril(prompt)
    return visible & ones.triu(prompt - window + 1) if cut else visible


def _switch(model: PreTrainedModel) -> None:
    AttentionInterface.register(NAME, attend_by_branches)
    AttentionMaskInterface.register(NAME, joined_mask)
    model.set_attn_implementation(NAME)


def _works(model: PreTrainedModel) -> bool:
    """Whether a tiny copy gives the same logits with shared prompts as without."""
    config = copy.deepcopy(model.config)
    if getattr(config.get_text_config(), "sliding_window", None):
        config.get_text_config().sliding_window = _WINDOW
    tiny = tiny_copy(type(model), config, "sdpa")
    if tiny is None:
        return False
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(3, 60, (length,), generator=generator).tolist()

    prompts = [ids(5), ids(7)]
    documents = [Tokens([*prompt, *ids(n)], []) for prompt in prompts for n in (4, 6)]
    batch = {**join(documents), "shared": torch.tensor([0, 5, 0, 7])}
    batch["targets"] = torch.arange(batch["input_ids"].shape[1])
    with torch.no_grad():
        apart = [tiny(input_ids=torch.tensor([item.input_ids])).logits[0] for item in documents]
        _switch(tiny)
        laid_out = share_prompts(batch)
        try:
            logits = tiny(
                input_ids=laid_out["input_ids"],
                position_ids=laid_out["position_ids"],
                use_cache=False,
                **laid_out["attention"],
            ).logits[0]
        except TypeError:  # its forward takes no further arguments to hand to attention
            return False
    expected = torch.cat(apart)
    difference = (logits[laid_out["targets"]] - expected).abs().max()
    return bool(difference <= _TOLERANCE * expected.abs().max())
