"""Choosing tokens for many rows at once, each by its own rules.

The rules are those of transformers' logits processors, in their order: repetition penalty, temperature,
top-k, top-p, min-p. The choice inverts the distribution at one uniform number that the row's own generator
draws; token ids, not ranks, are in order there, so rounding that differs with the size of the batch
doesn't change an answer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence

import torch

from ft_core.engine import Sampling
from ft_serve.engines.pt.constraints import Matcher

TIE_ROOM = 64
"""Candidates taken beyond top-k, so that tokens as likely as the last one are kept as well."""


class RowSampler:
    """One request's rules and state: its random numbers and the tokens it has seen.

    Args:
        sampling: the rules.
        seed: of its random numbers.
        prompt: token ids that the repetition penalty counts as seen.
        matcher: what the answer must be.
        stop_token_ids: tokens that end the answer, which ``min_tokens`` keeps back.
    """

    def __init__(
        self,
        sampling: Sampling,
        seed: int,
        prompt: Sequence[int],
        matcher: Matcher | None = None,
        stop_token_ids: Collection[int] = (),
    ) -> None:
        self.sampling = sampling
        self._random = random.Random(seed)
        self._seen = set(prompt) if sampling.repetition_penalty != 1.0 else None
        self._counts: Counter[int] | None = None
        if sampling.frequency_penalty or sampling.presence_penalty:
            self._counts = Counter()
        self._matcher = matcher
        self._kept_back = sorted(stop_token_ids) if sampling.min_tokens > 0 else []
        self._chosen = 0

    @property
    def greedy(self) -> bool:
        """Whether it takes the most likely token each time."""
        return self.sampling.temperature == 0.0

    @property
    def truncates(self) -> bool:
        """Whether it leaves out unlikely tokens."""
        sampling = self.sampling
        return sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0

    def draw(self) -> float:
        """Return the next uniform number in [0, 1)."""
        return self._random.random()

    @property
    def complete(self) -> bool:
        """Whether the answer is all that it may be."""
        return self._matcher is not None and self._matcher.complete

    def note(self, token: int) -> None:
        """Count a generated token as seen."""
        self._chosen += 1
        if self._seen is not None:
            self._seen.add(token)
        if self._counts is not None:
            self._counts[token] += 1
        if self._matcher is not None:
            self._matcher.accept(token)

    def penalise(self, logits: torch.Tensor) -> None:
        """Apply penalties, biases and the constraint to this row's logits, shape (vocabulary), in place."""
        if self._seen:
            seen = torch.tensor(sorted(self._seen), device=logits.device)
            scores = logits[seen]
            penalty = self.sampling.repetition_penalty
            logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
        if self._counts:
            tokens = torch.tensor(list(self._counts), device=logits.device)
            times = torch.tensor(list(self._counts.values()), device=logits.device)
            taken = self.sampling.frequency_penalty * times + self.sampling.presence_penalty
            logits[tokens] -= taken.to(logits.dtype)
        if bias := self.sampling.logit_bias:
            added = torch.tensor(list(bias.values()), dtype=logits.dtype, device=logits.device)
            logits[torch.tensor(list(bias), device=logits.device)] += added
        if self._kept_back and self._chosen < self.sampling.min_tokens:
            logits[torch.tensor(self._kept_back, device=logits.device)] = -torch.inf
        if self._matcher is not None:
            self._matcher.mask(logits)


def choose(logits: torch.Tensor, samplers: Sequence[RowSampler]) -> list[int]:
    """Choose the next token of each row.

    Args:
        logits: float32, shape (rows, vocabulary); penalties are applied in place.
        samplers: one per row.
    """
    for row, sampler in enumerate(samplers):
        sampler.penalise(logits[row])
    return pick(logits, samplers)


def pick(logits: torch.Tensor, samplers: Sequence[RowSampler]) -> list[int]:
    """Choose as ``choose`` does, from logits to which the penalties were applied."""
    tokens: list[int] = logits.argmax(-1).tolist()
    for truncates in (False, True):
        rows = [i for i, s in enumerate(samplers) if not s.greedy and s.truncates == truncates]
        if rows:
            chosen = [samplers[row] for row in rows]
            ids, probabilities = candidates(logits[rows], [s.sampling for s in chosen])
            for row, token in zip(rows, _invert(ids, probabilities, chosen), strict=True):
                tokens[row] = token
    return tokens


def candidates(
    logits: torch.Tensor, samplings: Sequence[Sampling]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that rows may choose and their probabilities.

    Args:
        logits: shape (rows, vocabulary), repetition penalty applied.
        samplings: one per row, none greedy.

    Returns:
        Token ids in ascending order and probabilities, both of shape (rows, candidates); tokens that a
        row's rules leave out have probability 0.
    """
    device, vocabulary = logits.device, logits.shape[1]
    temperature = torch.tensor([s.temperature for s in samplings], device=device)[:, None]
    scores = logits / temperature
    if all(s.top_k == 0 and s.top_p == 1.0 and s.min_p == 0.0 for s in samplings):
        return torch.arange(vocabulary, device=device).expand_as(scores), scores.softmax(-1)
    top_k = [min(s.top_k, vocabulary) if s.top_k > 0 else vocabulary for s in samplings]
    taken = min(vocabulary, max(top_k) + TIE_ROOM)
    values, ids = scores.topk(taken)
    last_kept = torch.tensor(top_k, device=device)[:, None] - 1
    if taken < vocabulary and bool((values[:, -1:] >= values.gather(1, last_kept)).any()):
        values, ids = scores.sort(descending=True)
    values = values.masked_fill(values < values.gather(1, last_kept), -torch.inf)
    probabilities = values.softmax(-1)
    top_p = torch.tensor([s.top_p for s in samplings], device=device)[:, None]
    rest = probabilities.flip(1).cumsum(1).flip(1)
    outside = (rest <= 1 - top_p) & (top_p < 1)
    outside[:, 0] = False
    least = torch.tensor([s.min_p for s in samplings], device=device)[:, None]
    outside |= probabilities < least * probabilities[:, :1]
    probabilities = values.masked_fill(outside, -torch.inf).softmax(-1)
    ids, order = ids.sort(1)
    return ids, probabilities.gather(1, order)


def _invert(
    ids: torch.Tensor, probabilities: torch.Tensor, samplers: Sequence[RowSampler]
) -> list[int]:
    cumulative = probabilities.double().cumsum(1)
    total = cumulative[:, -1:]
    drawn = torch.tensor([s.draw() for s in samplers], dtype=torch.float64, device=ids.device)
    # Rounding must not carry the number past the last token that has any probability.
    target = torch.minimum(drawn[:, None] * total, total.nextafter(torch.zeros_like(total)))
    places = torch.searchsorted(cumulative, target, right=True)
    return ids.gather(1, places).squeeze(1).tolist()
