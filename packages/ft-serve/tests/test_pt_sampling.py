"""Token choice against transformers' logits processors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ft_core.engine import Sampling
from ft_serve.engines.pt.sampling import RowSampler, candidates, choose

VOCABULARY = 500
PROMPT = [3, 17, 17, 200, 499]


def _reference(logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    processors: Any = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    return processors(torch.tensor([seen]), logits[None].clone())[0].softmax(-1)


def _ours(logits: torch.Tensor, samplings: list[Sampling], seen: list[int]) -> torch.Tensor:
    logits = logits.clone()
    for row, sampling in enumerate(samplings):
        RowSampler(sampling, 0, seen).penalise(logits[row])
    ids, probabilities = candidates(logits, samplings)
    return torch.zeros_like(logits).scatter_(1, ids, probabilities)


RULES = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.3, top_k=20, top_p=0.7),
    Sampling(temperature=0.7, top_k=5),
    Sampling(temperature=1.5, top_p=0.9),
    Sampling(temperature=1.0, top_p=0.01),
    Sampling(temperature=2.0, top_k=1),
    Sampling(temperature=1.0, top_k=10_000),
    Sampling(temperature=0.8, top_k=40, top_p=0.95, repetition_penalty=1.3),
    Sampling(temperature=0.8, repetition_penalty=0.5),
    Sampling(temperature=1.2, min_p=0.05),
    Sampling(temperature=1.2, top_k=30, top_p=0.9, min_p=0.3),
    Sampling(temperature=1.2, min_p=1.0),
]


@pytest.mark.parametrize("sampling", RULES, ids=str)
def test_probabilities_equal_the_processors(sampling: Sampling) -> None:
    logits = 4 * torch.randn(8, VOCABULARY, generator=torch.Generator().manual_seed(1))
    got = _ours(logits, [sampling] * 8, PROMPT)
    want = torch.stack([_reference(row, sampling, PROMPT) for row in logits])
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_rows_with_different_rules_share_a_batch() -> None:
    logits = 4 * torch.randn(len(RULES), VOCABULARY, generator=torch.Generator().manual_seed(2))
    got = _ours(logits, RULES, PROMPT)
    for row, sampling in enumerate(RULES):
        want = _reference(logits[row], sampling, PROMPT)
        torch.testing.assert_close(got[row], want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("tied", [10, 300])
def test_tokens_as_likely_as_the_last_one_are_kept(tied: int) -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, :tied] = 2.0
    logits[0, 400] = 3.0
    sampling = Sampling(temperature=1.0, top_k=4)
    want = _reference(logits[0], sampling, [])
    assert int((want > 0).sum()) == tied + 1
    torch.testing.assert_close(_ours(logits, [sampling], [])[0], want)


def test_greedy_takes_the_most_likely_after_the_penalty() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 17], logits[0, 30] = 4.0, 3.0
    sampling = Sampling(repetition_penalty=2.0)
    sampler = RowSampler(sampling, 0, PROMPT)
    assert choose(logits.clone(), [RowSampler(Sampling(), 0, PROMPT)]) == [17]
    assert choose(logits.clone(), [sampler]) == [30]
    sampler.note(30)
    assert choose(logits.clone(), [sampler]) == [17]


@pytest.mark.parametrize("sampling", [RULES[0], RULES[3], RULES[7]], ids=str)
def test_frequencies_follow_the_probabilities(sampling: Sampling) -> None:
    logits = 2 * torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    sampling = replace(sampling, repetition_penalty=1.0)
    sampler = RowSampler(sampling, 11, [])
    draws = torch.tensor(choose(logits.repeat(20_000, 1), [sampler] * 20_000))
    got = torch.bincount(draws, minlength=12) / 20_000
    want = _reference(logits[0], sampling, [])
    torch.testing.assert_close(got, want, atol=0.012, rtol=0)
    assert not got[want == 0].any()


def test_a_seeds_choices_dont_depend_on_the_other_rows() -> None:
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(4))
    alone = RowSampler(RULES[1], 5, [])
    want = [choose(logits.clone(), [alone])[0] for _ in range(20)]
    shared, others = RowSampler(RULES[1], 5, []), [RowSampler(rule, 9, []) for rule in RULES]
    batch = logits.repeat(len(RULES) + 1, 1)
    got = [choose(batch.clone(), [*others, shared])[-1] for _ in range(20)]
    assert got == want
    assert len(set(got)) > 1
