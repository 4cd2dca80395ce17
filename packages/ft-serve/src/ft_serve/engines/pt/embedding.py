"""Vectors of texts from a causal language model's last hidden states."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from ft_core.engine import Pooling
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.batch.cache import forward_parameters
from ft_serve.engines.pt.batch.rows import PADDING_ID
from ft_serve.engines.pt.scoring import groups_of


def embed_sequences(
    adapters: RowAdapters,
    sequences: Sequence[Sequence[int]],
    *,
    pooling: Pooling = "mean",
    adapter: str | None = None,
) -> Generator[None, None, list[list[float]]]:
    """Return a vector of the model's hidden size for every sequence.

    A generator that pauses after each forward pass, so that others get their turn.

    Args:
        adapters: a causal language model with its adapters.
        sequences: token ids, each of at least one.
        pooling: the mean of the last hidden states of all tokens, or the last token's.
        adapter: which one to use.
    """
    model = adapters.model
    results: list[list[float]] = [[]] * len(sequences)
    keep = {"logits_to_keep": 1} if "logits_to_keep" in forward_parameters(model) else {}
    for group in groups_of([len(sequence) for sequence in sequences]):
        rows = [list(sequences[index]) for index in group]
        lengths = torch.tensor([len(row) for row in rows], device=model.device)
        width = int(lengths.max())
        # Padding goes behind the rows, where causal attention keeps it out of sight.
        padded = [row + [PADDING_ID] * (width - len(row)) for row in rows]
        adapters.use([adapter] * len(rows))
        output = model(
            input_ids=torch.tensor(padded, device=model.device),
            output_hidden_states=True,
            use_cache=False,
            **keep,
        )
        hidden = output.hidden_states[-1].float()
        if pooling == "last":
            pooled = hidden[torch.arange(len(rows), device=model.device), lengths - 1]
        else:
            own = torch.arange(width, device=model.device) < lengths[:, None]
            pooled = (hidden * own[..., None]).sum(1) / lengths[:, None]
        for index, vector in zip(group, pooled.tolist(), strict=True):
            results[index] = vector
        yield
    return results
