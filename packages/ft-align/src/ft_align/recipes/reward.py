"""Reward models: learning scores of answers from pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ft_align.encoding import PairEncoder
from ft_align.losses.preference import PreferenceLoss
from ft_align.losses.reward import reward_loss
from ft_align.recipes.encoded import EncodedRecipe
from ft_align.scores import document_scores
from ft_core.recipe import Batch, LossOutput, Term, Totals
from ft_core.samples import Sample
from ft_core.sequences import join


def _encoder() -> PairEncoder:
    return PairEncoder("rm", media=False)


@dataclass(frozen=True)
class RewardRecipe(EncodedRecipe):
    """Trains a model with a score head to give chosen answers higher scores than rejected ones.

    Attributes:
        encoder: turns rows into samples; which tokens of an answer would be learned plays no part here.
        center: weight of the term that keeps rewards around 0; see ``reward_loss``.
    """

    encoder: PairEncoder = field(default_factory=_encoder)
    center: float = 0.0

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count the weights of the pairs."""
        return {"pairs": float(sum(sample.values["weight"] for sample in global_batch))}

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join chosen and rejected answers in one row, with the ``row_weights`` and ``margins`` [S] of their pairs."""
        values = [sample.values for sample in samples]
        return {
            **join([item for sample in samples for item in sample.sequences]),
            "row_weights": torch.tensor([item.get("weight", 1.0) for item in values]),
            "margins": torch.tensor([item.get("margin", 0.0) for item in values]),
        }

    def loss(
        self, model: torch.nn.Module, batch: Batch, reference: torch.nn.Module | None
    ) -> LossOutput:
        """Return the loss over pairs."""
        scores = document_scores(model, batch)
        pairs = reward_loss(
            scores[::2],
            scores[1::2],
            margins=batch["margins"].to(scores.dtype),
            center=self.center,
        )
        weights = batch["row_weights"].to(scores.dtype)
        return LossOutput({"loss": Term((pairs.losses * weights).sum(), "pairs")}, _metrics(pairs))


@torch.no_grad()
def _metrics(pairs: PreferenceLoss) -> dict[str, tuple[float, float]]:
    """Return what the log shows: means over pairs."""
    shown, count = pairs.shown(), float(len(pairs.losses))
    sums = torch.stack([value.sum() for value in shown.values()]).tolist()
    return {name: (total, count) for name, total in zip(shown, sums, strict=True)}
