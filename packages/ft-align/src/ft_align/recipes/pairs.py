"""Learning from pairs: dpo, orpo, simpo and cpo are this recipe with different objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ft_align.encoding import PairEncoder
from ft_align.logprobs import (
    AnswerLogprobs,
    answer_logprobs,
    collate_answers,
    reference_logprobs,
)
from ft_align.losses.preference import PreferenceLoss
from ft_align.recipes.encoded import EncodedRecipe
from ft_align.recipes.objectives import Dpo, Objective
from ft_core.recipe import Batch, LossOutput, Term, Totals
from ft_core.samples import Sample


@dataclass(frozen=True)
class PairRecipe(EncodedRecipe):
    """Trains a model to find chosen answers likelier than rejected ones.

    The loss is ``share * preference + likelihood * nll``: the preference is averaged over pairs by the
    weights of their rows, the negative log-likelihood of chosen answers over their tokens.

    Attributes:
        encoder: turns rows into samples.
        objective: the preference.
        share: of the preference in the loss.
        likelihood: weight of the chosen answers' negative log-likelihood.
    """

    encoder: PairEncoder = field(default_factory=PairEncoder)
    objective: Objective = field(default_factory=Dpo)
    share: float = 1.0
    likelihood: float = 0.0

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count the weights of the pairs, and the loss weights of the chosen answers' tokens."""
        return {
            "pairs": float(sum(sample.values["weight"] for sample in global_batch)),
            "tokens": float(sum(sum(item.sequences[0].loss_weights[1:]) for item in global_batch)),
        }

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join chosen and rejected answers in one row."""
        return collate_answers(samples)

    def loss(
        self, model: torch.nn.Module, batch: Batch, reference: torch.nn.Module | None
    ) -> LossOutput:
        """Return the preference over pairs, and the negative log-likelihood of chosen answers."""
        known = reference_logprobs(reference, batch) if self.objective.refers else None
        policy = answer_logprobs(model, batch)
        pairs = self.objective(policy, known)
        weights = batch["row_weights"].to(pairs.losses.dtype)
        terms = {"preference": Term(self.share * (pairs.losses * weights).sum(), "pairs")}
        nll = policy.nll[::2].sum()
        if self.likelihood:
            terms["nll"] = Term(self.likelihood * nll, "tokens")
        return LossOutput(terms, _metrics(pairs, policy, batch, nll))


@torch.no_grad()
def _metrics(
    pairs: PreferenceLoss, policy: AnswerLogprobs, batch: Batch, nll: torch.Tensor
) -> dict[str, tuple[float, float]]:
    """Return what the log shows: means over pairs, and the likelihood over tokens."""
    per_pair = {
        **pairs.shown(),
        "logps/chosen": policy.sums[::2],
        "logps/rejected": policy.sums[1::2],
    }
    trained = batch["weights"].where(batch["documents"] % 2 == 0, 0).sum()
    sums = torch.stack([*(value.sum() for value in per_pair.values()), nll, trained]).tolist()
    count = float(len(pairs.losses))
    metrics = {name: (total, count) for name, total in zip(per_pair, sums, strict=False)}
    return {**metrics, "nll_loss": (sums[-2], sums[-1])}
