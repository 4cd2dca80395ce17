"""Supervised fine-tuning: the assistant's answers are learned, each given all that came before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ft_core.examples import Example
from ft_core.loss_scale import LossPolicy
from ft_core.next_tokens import NextTokenEncoder
from ft_core.recipe import Batch, LossOutput, Totals
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template
from ft_core.templates.truncation import TruncationStrategy
from ft_train.recipes.causal import Accuracy, collate_joined, count_tokens, next_token_loss


@dataclass(frozen=True)
class SftRecipe:
    """Supervised fine-tuning on conversations.

    Attributes:
        max_length: longest sample in tokens, at least 2; -1 sets no limit.
        truncation_strategy: what happens to longer ones. ``delete`` drops them, ``truncation_left`` cuts
            their beginning off, ``right`` their end.
        policy: what is learned of a row, and how much it counts.
        accuracy: what the log's ``acc`` counts.
    """

    max_length: int = 2048
    truncation_strategy: TruncationStrategy = "delete"
    policy: LossPolicy = field(default_factory=LossPolicy)
    accuracy: Accuracy = "token"
    name: str = "sft"
    sums_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.encoder()  # refuses what can't work

    def encoder(self) -> NextTokenEncoder:
        """Return the part that turns rows into samples."""
        return NextTokenEncoder("sft", self.max_length, self.truncation_strategy, self.policy)

    @property
    def fingerprint(self) -> str:
        """Part of the cache key of encoded rows."""
        return self.encoder().fingerprint

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn conversations into samples; each row that gives none comes back with its reason."""
        return self.encoder().encode(examples, template)

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count the loss weights of all trained tokens."""
        return count_tokens(global_batch)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join the samples in one row."""
        return collate_joined(samples)

    def loss(
        self, model: torch.nn.Module, batch: Batch, reference: torch.nn.Module | None
    ) -> LossOutput:
        """Return the weighted cross-entropy of the trained tokens."""
        return next_token_loss(model, batch, self.accuracy)
