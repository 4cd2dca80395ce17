"""Reward models: learning scores of answers from pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ft_align.encoding import PairEncoder
from ft_align.losses.preference import PreferenceLoss
from ft_align.losses.reward import reward_loss
from ft_align.scores import document_scores
from ft_core.examples import Example
from ft_core.recipe import Batch, LossOutput, Term, Totals
from ft_core.samples import Dropped, Sample
from ft_core.sequences import join
from ft_core.templates.template import Template


def _encoder() -> PairEncoder:
    return PairEncoder("rm")


@dataclass(frozen=True)
class RewardRecipe:
    """Trains a model with a score head to give chosen answers higher scores than rejected ones.

    Attributes:
        encoder: turns rows into samples; which tokens of an answer would be learned plays no part here.
        center: weight of the term that keeps rewards around 0; see ``reward_loss``.
    """

    encoder: PairEncoder = field(default_factory=_encoder)
    center: float = 0.0

    @property
    def name(self) -> str:
        """``rm``."""
        return self.encoder.name

    @property
    def fingerprint(self) -> str:
        """Part of the cache key of encoded rows."""
        return self.encoder.fingerprint

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn preferences into samples; each row that gives none comes back with its reason."""
        return self.encoder.encode(examples, template)

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count the weights of the pairs."""
        return {"pairs": float(sum(sample.values["weight"] for sample in global_batch))}

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join chosen and rejected answers in one row, with the ``row_weights`` and ``margins`` [S] of their pairs."""
        values = {
            f"{name}s": torch.tensor([sample.values.get(key, usual) for sample in samples])
            for name, key, usual in (("row_weight", "weight", 1.0), ("margin", "margin", 0.0))
        }
        return {**join([item for sample in samples for item in sample.sequences]), **values}

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
    margins = pairs.chosen_rewards - pairs.rejected_rewards
    per_pair = {
        "rewards/chosen": pairs.chosen_rewards,
        "rewards/rejected": pairs.rejected_rewards,
        "rewards/margins": margins,
        "rewards/accuracies": (margins > 0).to(margins.dtype),
    }
    sums = torch.stack([value.sum() for value in per_pair.values()]).tolist()
    return {name: (total, float(len(margins))) for name, total in zip(per_pair, sums, strict=True)}
