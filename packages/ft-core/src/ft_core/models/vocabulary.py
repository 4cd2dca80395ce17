"""Rows of the embedding and the head for tokens that a model didn't have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from transformers import PreTrainedModel

_LARGEST_MULTIPLE = 128
"""Numbers of rows that models are padded to are multiples of powers of two up to this one."""


def vocabulary_rows(model: PreTrainedModel) -> int:
    """Return how many tokens the embedding has rows for, which may be more than the tokenizer knows."""
    return int(cast(torch.Tensor, model.get_input_embeddings().weight).shape[0])


def resize_vocabulary(model: PreTrainedModel, rows: int) -> None:
    """Give embedding, head and configuration another number of rows; what new ones hold is arbitrary."""
    if rows != vocabulary_rows(model):
        model.resize_token_embeddings(rows, mean_resizing=False)


def add_tokens(model: PreTrainedModel, token_ids: Sequence[int], *, known: int) -> None:
    """Give new tokens rows that hold the mean of the known ones, in the embedding and the head.

    With the mean the scores of the other tokens hardly change (Hewitt 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html). Rows that the model has to spare are used; where
    it has too few, it gets some, up to the multiple that its rows were padded to.

    Args:
        model: plain, without adapters; it may be on torch's meta device.
        token_ids: ids of the new tokens.
        known: number of tokens that the tokenizer had before.
    """
    rows = vocabulary_rows(model)
    used, needed = min(known, rows), max(token_ids) + 1
    if needed > rows:
        multiple = _multiple(rows) if rows > known else 1
        resize_vocabulary(model, -(-needed // multiple) * multiple)
    fresh = sorted({*token_ids, *range(rows, vocabulary_rows(model))})
    head = model.get_output_embeddings()
    weights = [model.get_input_embeddings().weight]
    if head is not None:
        bias = getattr(head, "bias", None)  # most heads have none, and some no attribute for it
        weights += [head.weight, *([] if bias is None else [bias])]
    with torch.no_grad():
        for weight in dict.fromkeys(cast(list[torch.Tensor], weights)):
            index = torch.tensor(fresh, device=weight.device)
            mean = weight[:used].to(torch.float32).mean(0, keepdim=True)
            weight[index] = mean.to(weight.dtype).expand(len(fresh), *weight.shape[1:])


def _multiple(rows: int) -> int:
    """Return the largest power of two, up to 128, that a number of rows is a multiple of."""
    multiple = 1
    while multiple < _LARGEST_MULTIPLE and rows % (2 * multiple) == 0:
        multiple *= 2
    return multiple
