"""Answers of the model that is being trained: to evaluate them, and to show what training changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from transformers import GenerationConfig, PreTrainedModel

from ft_core.engine import Sampling
from ft_core.samples import Tokens

TEXT_PROMPT = 32
"""Tokens of a text that has no question, which the model goes on from."""


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """What answering takes beyond the model.

    Attributes:
        decode: token ids to text, without special tokens.
        stop_token_ids: tokens that end an answer.
        stop_strings: texts that end one; they are no part of it.
        pad_token_id: fills up shorter prompts of a batch.
        sampling: how tokens are chosen.
    """

    decode: Callable[[Sequence[int]], str]
    stop_token_ids: frozenset[int]
    stop_strings: tuple[str, ...] = ()
    pad_token_id: int = 0
    sampling: Sampling = field(default_factory=Sampling)

    def greedy(self, max_new_tokens: int) -> AnswerSettings:
        """Return the settings for the most likely answers, which are no longer than this."""
        bound = min(max_new_tokens, self.sampling.max_new_tokens or max_new_tokens)
        return replace(self, sampling=Sampling(max_new_tokens=bound))


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, and the answer that its row gives.

    Attributes:
        prompt: token ids that the model goes on from: just what serving would feed it.
        answer: token ids of the row's own answer.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def question_of(tokens: Tokens) -> Question:
    """Split a sequence before the last stretch of trained tokens; a text after its beginning."""
    weights = tokens.loss_weights
    end = max(place for place, weight in enumerate(weights) if weight and place) + 1
    start = end
    while start > 1 and weights[start - 1]:
        start -= 1
    if start == 1:  # a text: all of it is learned
        start = min(TEXT_PROMPT, max(1, end // 2))
    ids = tuple(tokens.input_ids)
    return Question(ids[:start], ids[start:end])


def answer(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: AnswerSettings,
    *,
    seed: int,
) -> list[str]:
    """Let a model answer prompts in one batch.

    The random state of training is left as it was, and the same seed gives the same answers.

    Args:
        model: a causal language model, in training or not.
        prompts: token ids.
        settings: how.
        seed: of sampling.
    """
    device = model.device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), settings.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        mask[row, longest - len(prompt) :] = 1
    trains = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(_devices(device), device_type=_kind(device)):
            torch.manual_seed(seed)
            output = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=_configuration(settings),
            )
    finally:
        model.train(trains)
    return [_text(row, settings) for row in output[:, longest:].tolist()]


def _text(ids: list[int], settings: AnswerSettings) -> str:
    stops = [place for place, token in enumerate(ids) if token in settings.stop_token_ids]
    text = settings.decode(ids[: stops[0]] if stops else ids)
    ends = [place for stop in settings.stop_strings if (place := text.find(stop)) >= 0]
    return (text[: min(ends)] if ends else text).strip()


def _configuration(settings: AnswerSettings) -> GenerationConfig:
    sampling = settings.sampling
    values = {
        "max_new_tokens": sampling.max_new_tokens,
        "eos_token_id": sorted(settings.stop_token_ids) or None,
        "pad_token_id": settings.pad_token_id,
        "num_beams": sampling.num_beams,
        "repetition_penalty": sampling.repetition_penalty,
        "do_sample": sampling.temperature > 0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "use_cache": True,
    }
    if sampling.temperature > 0:
        values |= {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
    return GenerationConfig(**values)


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type


def _devices(device: torch.device) -> list[torch.device]:
    return [] if device.type == "cpu" else [device]
