"""Batches of documents: joined in one row, or padded to a rectangle for models that mix joined rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from ft_core.samples import Tokens

if TYPE_CHECKING:
    from ft_core.recipe import Batch


def join(tokens: Sequence[Tokens]) -> Batch:
    """Join documents end to end in one row.

    No token is trained from a token of another document: the first of each document carries no loss.

    Args:
        tokens: D documents with T tokens in all, N of which carry loss.

    Returns:
        ``input_ids`` [1, T]; ``position_ids`` [1, T], restarting at 0 in each document;
        ``cu_seqlens`` [D + 1], where documents begin, and T; ``targets`` [N], the indices in the row
        whose logits are needed (the predecessor of each trained token); ``labels`` [N], the trained
        tokens; ``weights`` [N], their loss weights; ``documents`` [N], the document of each. There is
        no attention mask: the positions tell documents apart. Where a document has media, ``media`` is
        the list of each document's.

    Raises:
        ValueError: there are no documents, or one is empty.
    """
    if not tokens or any(len(document) == 0 for document in tokens):
        raise ValueError("a batch needs at least one document, and each at least one token")
    ids: list[int] = []
    positions: list[int] = []
    starts: list[int] = [0]
    targets: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    owners: list[int] = []
    for index, document in enumerate(tokens):
        offset = starts[-1] - 1
        input_ids = document.input_ids
        for place, weight in enumerate(document.loss_weights):
            if weight and place:
                targets.append(offset + place)
                labels.append(input_ids[place])
                weights.append(weight)
                owners.append(index)
        ids.extend(input_ids)
        positions.extend(range(len(input_ids)))
        starts.append(len(ids))
    media = [document.media for document in tokens]
    return {
        **({"media": media} if any(media) else {}),
        "input_ids": torch.tensor([ids], dtype=torch.long),
        "position_ids": torch.tensor([positions], dtype=torch.long),
        "cu_seqlens": torch.tensor(starts, dtype=torch.long),
        "targets": torch.tensor(targets, dtype=torch.long),
        "labels": torch.tensor(labels, dtype=torch.long),
        "weights": torch.tensor(weights, dtype=torch.float32),
        "documents": torch.tensor(owners, dtype=torch.long),
    }


def to_padded(batch: Batch, *, pad_token_id: int = 0) -> Batch:
    """Lay a joined batch out as D rows padded on the right to the longest.

    Returns:
        The same keys as ``join``, with ``input_ids`` and ``position_ids`` [D, L], ``targets`` [N] as
        indices into the flattened D × L tokens, and an ``attention_mask`` [D, L]. A padded batch is
        returned as it is.
    """
    if "attention_mask" in batch:
        return batch
    starts: torch.Tensor = batch["cu_seqlens"]
    lengths = starts.diff()
    longest = int(lengths.max())
    places = torch.arange(longest, device=starts.device)
    inside = places < lengths[:, None]
    ids = batch["input_ids"].new_full((len(lengths), longest), pad_token_id)
    ids[inside] = batch["input_ids"][0]
    owners = batch["documents"]
    return {
        **batch,
        "input_ids": ids,
        "position_ids": places.expand(len(lengths), -1),
        "attention_mask": inside.long(),
        "targets": batch["targets"] - starts[owners] + owners * longest,
    }


def pad(tokens: Sequence[Tokens], *, pad_token_id: int = 0) -> Batch:
    """Return documents as ``to_padded(join(tokens))`` lays them out."""
    return to_padded(join(tokens), pad_token_id=pad_token_id)


def trained_tokens(tokens: Iterable[Tokens]) -> int:
    """Count the tokens that carry loss: N of ``join``."""
    return sum(document.trained for document in tokens)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Return a batch whose tensors are on a device, those of its features too."""

    def moved(value: object) -> object:
        if isinstance(value, dict):
            return to_device(value, device)
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return {name: moved(value) for name, value in batch.items()}
