"""Learning from single answers that are labelled desirable or not: kto, bco and apo_zero_unpaired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ft_align.encoding import AnswerEncoder
from ft_align.logprobs import AnswerLogprobs, answer_logprobs, collate_answers, reference_logprobs
from ft_align.loss_types import check_beta, check_loss_type, check_weights
from ft_align.losses.kto import LabelledLoss, kto_loss
from ft_align.mismatched import mismatch
from ft_align.ranks import add_up
from ft_align.recipes.encoded import EncodedRecipe
from ft_align.reference import evaluating
from ft_align.running_mean import RunningMean
from ft_core.recipe import Batch, LossOutput, Term, Totals
from ft_core.samples import Sample, Tokens
from ft_core.sequences import to_device
from ft_core.sequences.isolation import language_model

Prepared = list[dict[str, Any]]

_FILLER = Sample((Tokens((0, 0), (0.0, 1.0)),) * 2, values={"prompt": 1.0})
"""Keeps a rank without samples in step with the others."""


@dataclass(frozen=True)
class LabelledRecipe(EncodedRecipe):
    """Trains a model to find desirable answers likelier, and undesirable ones less likely, than a reference.

    What rewards are compared with, the anchor, belongs to a whole step. ``kto`` estimates the divergence
    from the reference by answers to other prompts of the step. ``bco`` takes the mean reward of all steps
    before this one, so that answers are computed once.

    Attributes:
        encoder: turns rows into samples.
        beta, loss_type, desirable_weight, undesirable_weight: as ``kto_loss`` takes them.
        mean: of the rewards so far, for ``bco``.
    """

    encoder: AnswerEncoder = field(default_factory=AnswerEncoder)
    beta: float = 0.1
    loss_type: str = "kto"
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    mean: RunningMean = field(default_factory=RunningMean, compare=False)

    def __post_init__(self) -> None:
        check_loss_type("kto", self.loss_type)
        check_beta(self.beta)
        check_weights(self.desirable_weight, self.undesirable_weight)

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count the weights of the answers."""
        return {"answers": float(sum(sample.values["weight"] for sample in global_batch))}

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join the answers in one row, with their labels."""
        labels = torch.tensor([bool(sample.values["label"]) for sample in samples])
        return {**collate_answers(samples), "desirable": labels}

    def prepare(
        self,
        model: torch.nn.Module,
        micro_batches: Sequence[Sequence[Sample]],
        reference: torch.nn.Module | None,
    ) -> Prepared:
        """Settle what the rewards of a step are compared with.

        Returns:
            For each micro-batch the ``anchor``, whether its rewards count in the mean of ``bco`` (those
            of a filler don't), and for ``kto`` the reference's log-probabilities, as they were computed
            on the way.
        """
        self.mean.settle()
        counts = [{"counts": bool(samples)} for samples in micro_batches]
        if self.loss_type != "kto":
            return [{**item, "anchor": self.mean.value} for item in counts]
        anchor, found = self._divergence(model, micro_batches, reference)
        return [{**a, **b, "anchor": anchor} for a, b in zip(counts, found, strict=True)]

    def loss(
        self, model: torch.nn.Module, batch: Batch, reference: torch.nn.Module | None
    ) -> LossOutput:
        """Return the loss over answers."""
        known = reference_logprobs(reference, batch)
        policy = answer_logprobs(model, batch)
        answers = kto_loss(
            policy.sums,
            known,
            batch["desirable"],
            anchor=0.0 if self.loss_type == "apo_zero_unpaired" else batch["anchor"],
            beta=self.beta,
            loss_type=self.loss_type,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        if self.loss_type == "bco" and model.training and batch["counts"]:
            self.mean.note(float(answers.rewards.sum()), len(answers.rewards))
        weights = batch["row_weights"].to(answers.losses.dtype)
        term = Term((answers.losses * weights).sum(), "answers")
        return LossOutput({"loss": term}, self._metrics(answers, policy, batch))

    def summarise(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the margin between the mean rewards of both kinds of answers."""
        names = ("rewards/chosen", "rewards/rejected")
        if not all(name in metrics for name in names):
            return {}
        return {"rewards/margins": metrics[names[0]] - metrics[names[1]]}

    def state(self) -> Mapping[str, float]:
        """Return the mean reward of ``bco``."""
        if self.loss_type != "bco":
            return {}
        self.mean.settle()
        return {"mean": self.mean.value, "count": self.mean.count}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint's mean reward."""
        self.mean.load(state)

    def _divergence(
        self,
        model: torch.nn.Module,
        micro_batches: Sequence[Sequence[Sample]],
        reference: torch.nn.Module | None,
    ) -> tuple[float, Prepared]:
        """Estimate KL(model, reference) by answers to other prompts, and compute the reference beside."""
        total = count = 0.0
        found: Prepared = []
        device = language_model(model).device
        others = mismatch(micro_batches, self.encoder.lengths.max_length)
        for samples, strangers in zip(micro_batches, others, strict=True):
            pairs = [
                _beside(sample, other) for sample, other in zip(samples, strangers, strict=True)
            ] or [_FILLER]
            alone = [replace(pair, sequences=pair.sequences[1:]) for pair in pairs]
            alone = [pair for pair in alone if pair.sequences]
            chosen = torch.tensor(
                [place > 0 for pair in pairs for place, _ in enumerate(pair.sequences)],
                device=device,
            )
            before = reference_logprobs(reference, to_device(collate_answers(pairs), device))
            if alone:
                with torch.no_grad(), evaluating(model):
                    after = answer_logprobs(model, to_device(collate_answers(alone), device)).sums
                if samples:
                    total += float((after - before[chosen]).sum())
                    count += len(after)
            found.append({"reference_sums": before[~chosen]} if samples else {})
        total, count = add_up(total, count)
        return (max(0.0, total / count) if count else 0.0), found

    @torch.no_grad()
    def _metrics(
        self, answers: LabelledLoss, policy: AnswerLogprobs, batch: Batch
    ) -> dict[str, tuple[float, float]]:
        """Return what the log shows: means over the answers of each kind."""
        desirable = batch["desirable"]
        anchor = float(batch.get("anchor", 0.0))
        metrics = {"kl": (anchor, 1.0)} if self.loss_type == "kto" else {}
        level = self.beta * anchor if self.loss_type == "kto" else anchor
        right = (answers.rewards > level) == desirable
        metrics["rewards/accuracies"] = (float(right.sum()), float(len(right)))
        for kind, members in (("chosen", desirable), ("rejected", ~desirable)):
            number = float(members.sum())
            if number:
                metrics[f"rewards/{kind}"] = (float(answers.rewards[members].sum()), number)
                metrics[f"logps/{kind}"] = (float(policy.sums[members].sum()), number)
        if float(tokens := policy.tokens[desirable].sum()):
            metrics["nll_loss"] = (-float(policy.sums[desirable].sum()), float(tokens))
        return metrics


def _beside(sample: Sample, other: Tokens | None) -> Sample:
    """Put an answer to another prompt beside a sample's own."""
    others = () if other is None else (other,)
    return Sample((*sample.sequences, *others), values={"prompt": sample.values["prompt"]})
