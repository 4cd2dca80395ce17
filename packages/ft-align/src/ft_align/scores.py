"""The scores that a reward model gives texts, with texts joined in one row."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from ft_core.errors import ModelError
from ft_core.recipe import Batch
from ft_core.sequences import Layout, layout_for, to_padded
from ft_core.sequences.isolation import language_model
from ft_core.tuners.whole import SCORE_HEAD


def document_scores(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Compute the scores [D] of all documents by one call of the whole model, in float32 or wider.

    They are what transformers gives each document by itself: the score at its last token that isn't the one that its
    configuration pads with. Since transformers keeps a single score of a row, all of them are taken from the head.

    Args:
        model: a model with a score head, possibly wrapped.
        batch: as ``ft_core.sequences.join`` makes it, on the model's device.

    Raises:
        ModelError: the model would mix joined documents, and its configuration names no token to pad with.
    """
    inner = language_model(model)
    filler = inner.config.get_text_config().pad_token_id
    lasts = _last_places(batch, filler)
    laid_out = batch
    if len(lasts) > 1 and layout_for(model) is Layout.PADDED:
        laid_out = _padded(inner, batch, filler)
    inputs = {
        name: laid_out[name]
        for name in ("input_ids", "position_ids", "attention_mask")
        if name in laid_out
    }
    found: list[torch.Tensor] = []

    def note(module: torch.nn.Module, given: Any, output: torch.Tensor) -> None:
        found.append(output.squeeze(-1))

    handle = inner.get_submodule(SCORE_HEAD).register_forward_hook(note)
    try:
        own: torch.Tensor = model(**inputs, use_cache=False).logits
    finally:
        handle.remove()
    (of_tokens,) = found
    if "attention_mask" in laid_out:
        picked = of_tokens[torch.arange(len(lasts), device=lasts.device), lasts]
    else:
        picked = of_tokens[0, batch["cu_seqlens"][:-1] + lasts]
    # Wrappers that gather weights for the backward pass wait for a gradient of what the model itself returned.
    scores: torch.Tensor = picked + 0 * own.sum()
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _last_places(batch: Batch, filler: int | None) -> torch.Tensor:
    """Return the place in each document [D] whose score is its own."""
    lengths: torch.Tensor = batch["cu_seqlens"].diff()
    if filler is None:
        return lengths - 1
    owners = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    places = batch["position_ids"][0].where(batch["input_ids"][0] != filler, 0)
    return torch.zeros_like(lengths).scatter_reduce(0, owners, places, "amax")


def _padded(model: PreTrainedModel, batch: Batch, filler: int | None) -> Batch:
    if filler is None:
        raise ModelError(
            f"{type(model).__name__} would let joined texts see each other, and its configuration has no pad_token_id, so "
            "its scores can't be learned in batches; set pad_token_id in its config.json"
        )
    return to_padded(batch, pad_token_id=filler)
