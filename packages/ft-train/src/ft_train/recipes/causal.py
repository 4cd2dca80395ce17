"""What sft and pt share: the batch and the loss of next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ft_core.recipe import Batch, LossOutput, Term, Totals
from ft_core.samples import Sample
from ft_core.sequences import join, pick_logprobs, token_logits

Accuracy = Literal["token", "sentence"]
"""What accuracy counts: trained tokens that are the most likely ones, or documents all of whose are."""


def count_tokens(samples: Sequence[Sample]) -> Totals:
    """Count what the loss is normalised by: the loss weights of all trained tokens."""
    weights = (
        sum(sequence.loss_weights[1:]) for sample in samples for sequence in sample.sequences
    )
    return {"tokens": float(sum(weights))}


def collate_joined(samples: Sequence[Sample]) -> Batch:
    """Join all sequences of the samples in one row."""
    return join([sequence for sample in samples for sequence in sample.sequences])


def next_token_loss(
    model: torch.nn.Module, batch: Batch, accuracy: Accuracy = "token"
) -> LossOutput:
    """Sum the weighted cross-entropies of the trained tokens, and count right guesses."""
    logits = token_logits(model, batch)
    labels, weights = batch["labels"], batch["weights"]
    losses = -(pick_logprobs(logits, labels, overwrite=True) * weights)
    metrics = {"acc": _right(logits, batch, accuracy)} if len(labels) else {}
    if "sources" in batch:
        metrics |= _by_source(losses, batch)
    return LossOutput({"loss": Term(losses.sum(), "tokens")}, metrics)


@torch.no_grad()
def _by_source(losses: torch.Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
    """Return the loss of each data set that has trained tokens here, and their weights.

    Args:
        losses: of the N trained tokens, weighted.
        batch: as ``ft_core.sequences.join`` makes it, with ``sources`` [D], the data set of each document.
    """
    owners: torch.Tensor = batch["sources"][batch["documents"]]
    return {
        f"source_{number}_loss": (
            float(losses[owners == number].sum()),
            float(batch["weights"][owners == number].sum()),
        )
        for number in sorted(set(owners.tolist()))
    }


@torch.no_grad()
def _right(logits: torch.Tensor, batch: Batch, accuracy: Accuracy) -> tuple[float, float]:
    """Return how many guesses are right, and of how many."""
    right = logits.argmax(-1) == batch["labels"]
    if accuracy == "token":
        return float(right.sum()), float(len(right))
    documents: torch.Tensor = batch["documents"]
    trained, wrong = set(documents.tolist()), set(documents[~right].tolist())
    return float(len(trained) - len(wrong)), float(len(trained))
