"""Log-probabilities of answers: one forward for all of them, with logits at their tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ft_align.shared_prompts import share_prompts, shares_prompts
from ft_core.recipe import Batch
from ft_core.samples import Sample
from ft_core.sequences import join, pick_logprobs, token_logits


@dataclass(frozen=True, slots=True)
class AnswerLogprobs:
    """Log-probabilities of the D answers of a micro-batch, in nats.

    Attributes:
        sums: of the tokens of each answer, shape (D,), in float32 or wider.
        tokens: how many those are, shape (D,), in the same type.
        nll: the negative log-likelihood of each answer's document, its tokens weighted as they are
            learned, shape (D,).
    """

    sums: torch.Tensor
    tokens: torch.Tensor
    nll: torch.Tensor

    @property
    def averages(self) -> torch.Tensor:
        """Per token, shape (D,)."""
        return self.sums / self.tokens.clamp(min=1)


def collate_answers(samples: Sequence[Sample]) -> Batch:
    """Join the answers of the samples in one row, each with its prompt, without padding.

    Returns:
        What ``ft_core.sequences.join`` returns, with ``answers`` [N], whether a trained token belongs to an
        answer (and not to a prompt that is learned too); ``shared`` [D], how many tokens at the head of a
        document are those of the document before it; ``row_weights`` [S], the weights of the samples; and where
        all samples know what a reference gives their answers, ``reference_sums`` [D].
    """
    batch = join([sequence for sample in samples for sequence in sample.sequences])
    prompts: list[int] = []
    shared: list[int] = []
    for sample in samples:
        prompt = int(sample.values["prompt"])
        prompts += [prompt] * len(sample.sequences)
        shared += [0, *[prompt] * (len(sample.sequences) - 1)]
    owners, starts = batch["documents"], batch["cu_seqlens"]
    places = batch["targets"] + 1 - starts[owners]
    known = [value for sample in samples for value in known_reference(sample)]
    return {
        **batch,
        **({"reference_sums": torch.tensor(known)} if len(known) == len(shared) else {}),
        "answers": places >= torch.tensor(prompts)[owners],
        "shared": torch.tensor(shared),
        "row_weights": torch.tensor([sample.values.get("weight", 1.0) for sample in samples]),
    }


def answer_logprobs(model: torch.nn.Module, batch: Batch) -> AnswerLogprobs:
    """Compute the log-probabilities of all answers by one call of the whole model.

    A prompt that two answers share is computed once if ``enable_shared_prompts`` was successful on the model, and
    there is nothing in it to be seen or heard.

    Args:
        model: a causal language model, possibly wrapped.
        batch: as ``collate_answers`` makes it, on the model's device.
    """
    laid_out = batch
    shared = "attention" not in batch and "features" not in batch and shares_prompts(model)
    if shared and bool(batch["shared"].any()):
        laid_out = share_prompts(batch)
    logprobs = pick_logprobs(token_logits(model, laid_out), batch["labels"], overwrite=True)
    owners, answers = batch["documents"], batch["answers"]

    def per_document(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(len(batch["shared"])).index_add(0, owners, values)

    return AnswerLogprobs(
        sums=per_document(logprobs.where(answers, 0)),
        tokens=per_document(answers.to(logprobs.dtype)),
        nll=-per_document(logprobs * batch["weights"].to(logprobs.dtype)),
    )


@torch.no_grad()
def reference_logprobs(reference: torch.nn.Module | None, batch: Batch) -> torch.Tensor:
    """Return the log-probabilities [D] of all answers under a reference, computed now or known from before.

    Args:
        reference: a frozen model; needed where the batch has no ``reference_sums``.
        batch: as ``collate_answers`` makes it, on the model's device.
    """
    if "reference_sums" in batch:
        known: torch.Tensor = batch["reference_sums"]
        return known
    if reference is None:
        raise ValueError("the method compares with a reference, and there is none")
    return answer_logprobs(reference, batch).sums


def known_reference(sample: Sample) -> list[float]:
    """Return what a reference gave the answers of a sample; nothing where that isn't known."""
    names = [f"reference_{index}" for index, _ in enumerate(sample.sequences)]
    return [sample.values[name] for name in names if name in sample.values]
