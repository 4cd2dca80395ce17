"""``POST /v1/completions``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ft_core.engine import Capability, GenerationEvent, GenerationRequest, TokenScores
from ft_core.errors import FtError
from ft_serve.engines.choices import choices
from ft_serve.openai.answering import Events
from ft_serve.openai.documented import StrictRoute, described
from ft_serve.openai.errors import ApiError, from_failure
from ft_serve.openai.front import Front, front_of
from ft_serve.openai.limits import Limits
from ft_serve.openai.prompts import Prompt, prompts_of
from ft_serve.openai.protocol.completions import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from ft_serve.openai.protocol.usage import Usage
from ft_serve.openai.sampling import check_counts, room_for, sampling_of
from ft_serve.openai.served import Served
from ft_serve.openai.streaming import Chunks, attended, begin_stream, event_bytes
from ft_serve.openai.token_text import finite, texts_of

router = APIRouter(route_class=StrictRoute)

SCORED_TOGETHER = 8
"""Prompts that are scored in one piece of work, between which a request can be given up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to.

    Attributes:
        model: name of what answers.
        adapter: the engine's.
        prompts: what is continued.
        requests: to the engine, ``n`` for each prompt; none where nothing is generated.
        n: continuations of each prompt.
        echo: give prompts back.
        logprobs: how many likeliest tokens are told; ``None`` tells nothing.
    """

    model: str
    adapter: str | None
    prompts: Sequence[Prompt]
    requests: Sequence[GenerationRequest]
    n: int
    echo: bool
    logprobs: int | None


@router.post("/v1/completions", response_model=Completion, responses=described(streams=Completion))
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue texts."""
    return await attended(request, _answer(front_of(request), body))


async def _answer(front: Front, body: CompletionRequest) -> Response:
    served = front.open()
    front.tell_extras(body)
    deadline = front.answering.deadline()
    plan = await front.off_loop(deadline, plan_completion, body, served, front.limits)
    scores: Sequence[TokenScores] = ()
    if plan.echo and plan.logprobs is not None:
        scores = await front.answering.within(deadline, _score(front, served, plan))
    events = front.answering.events(served, plan.requests, plan.model, deadline)
    writer = _Writer(plan, served, scores)
    if body.stream:
        options = body.stream_options
        usage = options is not None and bool(options.include_usage)
        return await begin_stream(writer.chunks(events, usage=usage), deadline)
    answer = await writer.whole(events)
    return Response(answer.model_dump_json(), media_type="application/json")


def plan_completion(body: CompletionRequest, served: Served, limits: Limits) -> Plan:
    """Tokenize a request's prompts and settle how they are continued.

    Raises:
        ApiError: they can't be.
    """
    model, adapter = served.find(body.model)
    n = check_counts(body, limits)
    if body.suffix:
        raise ApiError(400, "suffix is not supported; leave it out", param="suffix")
    if body.best_of is not None and body.best_of != n:
        raise ApiError(400, "best_of is not supported; leave it out", param="best_of")
    echo = bool(body.echo)
    if body.max_tokens == 0 and not echo:
        raise ApiError(400, "max_tokens 0 needs echo to be true", param="max_tokens")
    if echo and body.logprobs is not None:
        served.require(Capability.SCORE, "echo with logprobs", "echo")
    prompts = prompts_of(
        body.prompt,
        served.tokenizer,
        most=limits.prompts,
        begins=body.add_special_tokens is not False,
    )
    requests = []
    for prompt in prompts if body.max_tokens != 0 else ():
        longest = room_for(served, len(prompt.token_ids), body.max_tokens, served.completion_tokens)
        sampling = sampling_of(body, served, max_new_tokens=longest, logprobs=body.logprobs)
        requests += choices(GenerationRequest(prompt.token_ids, sampling, adapter), n)
    return Plan(model, adapter, prompts, requests, n, echo, body.logprobs)


async def _score(front: Front, served: Served, plan: Plan) -> list[TokenScores]:
    ids = [prompt.token_ids for prompt in plan.prompts]
    scores: list[TokenScores] = []
    try:
        with front.answering.counted(ids):
            for begin in range(0, len(ids), SCORED_TOGETHER):
                some = ids[begin : begin + SCORED_TOGETHER]
                scores += await served.engine.score(
                    some, top=plan.logprobs or 0, adapter=plan.adapter
                )
                await asyncio.sleep(0)
    except FtError as error:
        raise from_failure(error, ready=served.engine.ready) from error
    return scores


@dataclass(slots=True)
class _Text:
    """One choice as far as it has come."""

    pieces: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    top: list[dict[str, float] | None] = field(default_factory=list)
    last: GenerationEvent | None = None


class _Writer:
    """Writes the choices of one request."""

    def __init__(self, plan: Plan, served: Served, scores: Sequence[TokenScores]) -> None:
        self._plan = plan
        self._texts = texts_of(served.tokenizer)
        self._scores = scores
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._fingerprint = f"ft-{served.engine_name}"
        self._choices = [_Text() for _ in range(len(plan.prompts) * plan.n)]
        self._offsets = [0] * len(self._choices)

    async def whole(self, events: Events) -> Completion:
        """Wait for all choices and return them."""
        if self._plan.echo:
            for index in range(len(self._choices)):
                self._echo(index)
        async for index, event in self._events(events):
            self._add(index, event)
        made = [self._choice(index) for index in range(len(self._choices))]
        return self._completion(made, self._usage())

    async def chunks(self, events: Events, *, usage: bool) -> Chunks:
        """Give all choices as events of a stream."""
        generating = self._events(events)
        async with aclosing(generating):
            begun = not self._plan.echo
            async for index, event in generating:
                if not begun:
                    begun = True
                    for chunk in self._echoes():
                        yield chunk
                self._add(index, event)
                yield self._chunk(index)
            if not begun:
                for chunk in self._echoes():
                    yield chunk
        if usage:
            yield event_bytes(self._completion([], self._usage()))

    async def _events(self, events: Events) -> Events:
        async with aclosing(events):
            if self._plan.requests:
                async for item in events:
                    yield item

    def _echoes(self) -> list[bytes]:
        for index in range(len(self._choices)):
            self._echo(index)
        return [self._chunk(index) for index in range(len(self._choices))]

    def _echo(self, index: int) -> None:
        """Put the prompt in front of a choice."""
        number = index // self._plan.n
        prompt, choice = self._plan.prompts[number], self._choices[index]
        choice.pieces.append(prompt.text)
        if self._plan.logprobs is None:
            return
        scores = self._scores[number]
        for place, token in enumerate(prompt.token_ids):
            choice.tokens.append(self._texts.label(token))
            choice.lengths.append(len(self._texts.text(token)))
            if place == 0:
                choice.logprobs.append(None)
                choice.top.append(None)
                continue
            logprob = scores.logprobs[place]
            likeliest = scores.top[place] if scores.top else ()
            choice.logprobs.append(finite(logprob))
            choice.top.append(self._top(token, logprob, likeliest))

    def _add(self, index: int, event: GenerationEvent) -> None:
        choice = self._choices[index]
        choice.last = event
        choice.pieces.append(event.text)
        for token in event.logprobs:
            choice.tokens.append(self._texts.label(token.token_id))
            choice.lengths.append(len(self._texts.text(token.token_id)))
            choice.logprobs.append(finite(token.logprob))
            choice.top.append(self._top(token.token_id, token.logprob, token.top))

    def _top(
        self, token: int, logprob: float, likeliest: Sequence[tuple[int, float]]
    ) -> dict[str, float]:
        """Return the likeliest tokens and the chosen one; of those that read the same the likelier one."""
        most = self._plan.logprobs or 0
        found: dict[str, float] = {}
        for token_id, value in likeliest[:most]:
            found.setdefault(self._texts.label(token_id), finite(value))
        found.setdefault(self._texts.label(token), finite(logprob))
        return found

    def _chunk(self, index: int) -> bytes:
        """Return what is new of a choice as an event, and forget it."""
        made = self._choice(index)
        last = self._choices[index].last
        self._choices[index] = _Text(last=last)
        return event_bytes(self._completion([made], None))

    def _choice(self, index: int) -> CompletionChoice:
        choice = self._choices[index]
        reason = None if choice.last is None else choice.last.finish_reason
        if choice.last is None and not self._plan.requests:
            reason = "length"
        return CompletionChoice(
            index=index,
            text="".join(choice.pieces),
            logprobs=self._logprobs(index),
            finish_reason="length" if reason == "length" else "stop" if reason else None,
            stop_reason=None if choice.last is None else choice.last.stop_reason,
        )

    def _logprobs(self, index: int) -> CompletionLogprobs | None:
        if self._plan.logprobs is None:
            return None
        choice = self._choices[index]
        offsets = []
        for length in choice.lengths:
            offsets.append(self._offsets[index])
            self._offsets[index] += length
        return CompletionLogprobs(
            tokens=choice.tokens,
            token_logprobs=choice.logprobs,
            top_logprobs=choice.top,
            text_offset=offsets,
        )

    def _completion(self, made: list[CompletionChoice], usage: Usage | None) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self._plan.model,
            choices=made,
            usage=usage,
            system_fingerprint=self._fingerprint,
        )

    def _usage(self) -> Usage:
        last = [choice.last for choice in self._choices if choice.last is not None]
        return Usage.of(
            sum(len(prompt.token_ids) for prompt in self._plan.prompts),
            sum(event.generated_tokens for event in last),
            sum(event.cached_tokens for event in last),
        )
