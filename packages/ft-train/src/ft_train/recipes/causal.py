"""What sft and pt share: the batch and the loss of next tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ft_core.recipe import Batch, LossOutput, Term, Totals
from ft_core.samples import Sample
from ft_core.sequences import join, pick_logprobs, token_logits

LOGITS_CHUNK_BYTES = 1 << 30
"""Above this size the float32 logits of a micro-batch are not held at once."""


def count_tokens(samples: Sequence[Sample]) -> Totals:
    """Count what the loss is normalised by: the loss weights of all trained tokens."""
    weights = (
        sum(sequence.loss_weights[1:]) for sample in samples for sequence in sample.sequences
    )
    return {"tokens": float(sum(weights))}


def collate_joined(samples: Sequence[Sample]) -> Batch:
    """Join all sequences of the samples in one row."""
    return join([sequence for sample in samples for sequence in sample.sequences])


def next_token_loss(model: torch.nn.Module, batch: Batch) -> LossOutput:
    """Sum the weighted cross-entropies of the trained tokens; evaluation also counts right guesses."""
    logits = token_logits(model, batch)
    labels, weights = batch["labels"], batch["weights"]
    count = len(labels)
    rows = max(1, LOGITS_CHUNK_BYTES // (4 * logits.shape[-1]))
    logprobs = pick_logprobs(logits, labels, chunk=rows if count > rows else None)
    metrics: dict[str, tuple[float, float]] = {}
    if not torch.is_grad_enabled() and count:
        metrics["acc"] = (float((logits.argmax(-1) == labels).sum()), float(count))
    return LossOutput({"loss": Term(-(logprobs * weights).sum(), "tokens")}, metrics)
