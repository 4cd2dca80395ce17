"""Requests that run alone through transformers' ``generate``: beams, media, and models whose rows share no cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ft_core.engine import GenerationEvent, TokenLogprob
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.answer import Answer
from ft_serve.engines.pt.logprobs import LogprobTable
from ft_serve.engines.pt.sampling import choose

Emit = Callable[[Answer, GenerationEvent], None]


def generate_alone(
    adapters: RowAdapters, answer: Answer, emit: Emit, between: Callable[[], None]
) -> None:
    """Answer one request from its prompt to its end, giving out its events as they come.

    Args:
        adapters: the model with its adapters.
        answer: the request.
        emit: takes its events.
        between: is called after each token; it may run the model for others.
    """
    model = adapters.model
    adapters.use([answer.adapter])

    def pause() -> None:
        between()
        adapters.use([answer.adapter])

    prompt = torch.tensor([answer.prompt], device=model.device)
    beams = answer.sampling.num_beams > 1
    choice = _OwnChoice(answer)
    processors = LogitsProcessorList([] if beams else [choice])
    watch: StoppingCriteria = (
        _Cancelled(answer, pause) if beams else _Accept(answer, choice, emit, pause)
    )
    devices = [] if model.device.type == "cpu" else [model.device]
    with torch.random.fork_rng(devices=devices, device_type=_rng_type(model)):
        torch.manual_seed(answer.seed)
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            **{name: value.to(model.device) for name, value in answer.features.items()},
            generation_config=_configuration(answer, beams),
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    if beams and not answer.cancelled:
        for token in output[0, prompt.shape[1] :].tolist():
            if event := answer.accept(token):
                emit(answer, event)
            if answer.finished:
                return
    if not answer.finished:
        emit(answer, answer.stop())


def _rng_type(model: PreTrainedModel) -> str:
    return "cuda" if model.device.type == "cpu" else str(model.device.type)


def _configuration(answer: Answer, beams: bool) -> GenerationConfig:
    sampling, limits = answer.sampling, answer.limits
    stop = sorted(limits.stop_token_ids) or None
    settings = {
        "max_new_tokens": limits.max_new_tokens,
        "eos_token_id": stop,
        "pad_token_id": stop[0] if stop else 0,
        "num_beams": sampling.num_beams,
        "num_return_sequences": 1,
        "do_sample": False,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "use_cache": True,
        "return_dict_in_generate": False,
    }
    if beams:
        settings["repetition_penalty"] = sampling.repetition_penalty
        if sampling.temperature > 0:
            settings |= {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
            }
    return GenerationConfig(**settings)


class _OwnChoice(LogitsProcessor):  # type: ignore[misc]
    """Chooses the token as the batched path does and leaves ``generate`` no other."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.logprob: TokenLogprob | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits = scores.float().clone()
        table = LogprobTable(logits, [self._answer.sampling.logprobs])
        chosen = choose(logits, [self._answer.sampler])
        self.logprob = table.of(0, chosen[0])
        only = torch.full_like(scores, -torch.inf)
        only[:, chosen[0]] = 0
        return only


class _Accept(StoppingCriteria):  # type: ignore[misc]
    """Hands each token to the answer and stops when the answer has ended."""

    def __init__(
        self, answer: Answer, choice: _OwnChoice, emit: Emit, pause: Callable[[], None]
    ) -> None:
        self._answer = answer
        self._choice = choice
        self._emit = emit
        self._pause = pause

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        answer = self._answer
        token = int(input_ids[0, -1])
        if not answer.finished and (event := answer.accept(token, self._choice.logprob)):
            self._emit(answer, event)
        if not answer.finished:
            self._pause()
        done = answer.finished or answer.cancelled
        return torch.full((input_ids.shape[0],), done, device=input_ids.device)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    """Stops all beams of a request that nobody waits for any more."""

    def __init__(self, answer: Answer, pause: Callable[[], None]) -> None:
        self._answer = answer
        self._pause = pause

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        if not self._answer.cancelled:
            self._pause()
        return torch.full((input_ids.shape[0],), self._answer.cancelled, device=input_ids.device)
