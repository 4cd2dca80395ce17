"""``POST /v1/chat/completions``."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ft_core.engine import Constraint, GenerationEvent, GenerationRequest, TokenLogprob
from ft_core.errors import FtError
from ft_serve.engines.choices import choices
from ft_serve.openai.answering import Events
from ft_serve.openai.conversation import functions_of, messages_of, render, variables_of
from ft_serve.openai.documented import StrictRoute, described
from ft_serve.openai.errors import ApiError, from_failure
from ft_serve.openai.forced_calls import ListOfCalls, OneCall, any_function, one_function
from ft_serve.openai.front import Front, front_of
from ft_serve.openai.limits import Limits
from ft_serve.openai.protocol.chat import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatRequest,
    FinishReason,
    FunctionTool,
    NamedToolChoice,
)
from ft_serve.openai.protocol.usage import Usage
from ft_serve.openai.reading import AnswerReader, Piece
from ft_serve.openai.reasoning import ReasoningForm, ReasoningReader
from ft_serve.openai.sampling import check_counts, room_for, sampling_of
from ft_serve.openai.served import Served
from ft_serve.openai.streaming import Chunks, attended, begin_stream, event_bytes
from ft_serve.openai.token_text import texts_of

router = APIRouter(route_class=StrictRoute)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to.

    Attributes:
        model: name of what answers.
        request: to the engine.
        n: how many answers.
        reasoning: marks of reasoning; ``None`` where there is none.
        opened: the prompt ends within reasoning.
        tools: functions that may be called.
        forced: the only function, or any of them, must be called.
        most_calls: of one answer.
        top_logprobs: how many likeliest tokens are told; ``None`` tells nothing.
    """

    model: str
    request: GenerationRequest
    n: int
    reasoning: ReasoningForm | None
    opened: bool
    tools: Sequence[FunctionTool]
    forced: str | bool
    most_calls: int | None
    top_logprobs: int | None


@router.post(
    "/v1/chat/completions", response_model=ChatCompletion, responses=described(streams=ChatChunk)
)
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    return await attended(request, _answer(front_of(request), body))


async def _answer(front: Front, body: ChatRequest) -> Response:
    served = front.open()
    front.tell_extras(body)
    deadline = front.answering.deadline()
    plan = await front.off_loop(deadline, plan_chat, body, served, front.limits)
    requests = choices(plan.request, plan.n)
    events = front.answering.events(served, requests, plan.model, deadline)
    writer = _Writer(plan, served)
    if body.stream:
        options = body.stream_options
        usage = options is not None and bool(options.include_usage)
        always = options is not None and bool(options.continuous_usage_stats)
        return await begin_stream(writer.chunks(events, usage=usage, always=always), deadline)
    answer = await writer.whole(events)
    return Response(answer.model_dump_json(), media_type="application/json")


def plan_chat(body: ChatRequest, served: Served, limits: Limits) -> Plan:
    """Render a request's conversation and settle how it is answered.

    Raises:
        ApiError: it can't be.
    """
    model, adapter = served.find(body.model)
    n = check_counts(body, limits)
    top = _top_logprobs(body)
    tools, forced, constraint = _settle_calls(body)
    template = served.template
    reasoning = served.reasoning
    try:
        prompt = render(
            template,
            messages_of(body.messages, reasons=reasoning is not None, media=served.media),
            functions_of(tools),
            variables_of(body),
            continues=_continues(body),
        )
        tokens = template.encode_segments([prompt])[0]
    except FtError as error:
        failure = from_failure(error, ready=True)
        failure.param = "messages"
        raise failure from error
    asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    room = room_for(served, len(tokens), asked, served.sampling.max_new_tokens)
    agent = served.agent if tools and not forced else None
    sampling = sampling_of(
        body,
        served,
        max_new_tokens=room,
        logprobs=top,
        stop=(*template.stop_strings, *(() if agent is None else agent.stop)),
        constraint=constraint,
        skip_special_tokens=agent is None or not agent.marks,
    )
    return Plan(
        model=model,
        request=GenerationRequest(list(tokens.input_ids), sampling, adapter, tokens.media),
        n=n,
        reasoning=reasoning,
        opened=reasoning is not None and not _continues(body) and reasoning.opened_by(prompt),
        tools=tools,
        forced=forced,
        most_calls=1 if body.parallel_tool_calls is False else None,
        top_logprobs=top,
    )


def _continues(body: ChatRequest) -> bool:
    if body.add_generation_prompt is False and not body.continue_final_message:
        raise ApiError(
            400,
            "add_generation_prompt false needs continue_final_message true",
            param="add_generation_prompt",
        )
    return bool(body.continue_final_message)


def _top_logprobs(body: ChatRequest) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _settle_calls(
    body: ChatRequest,
) -> tuple[list[FunctionTool], str | bool, Constraint | None]:
    """Return the functions, whether one must be called, and what the answer is held to."""
    form = _response_format(body)
    choice, tools = body.tool_choice, body.tools or []
    if not tools:
        if choice not in (None, "none"):
            raise ApiError(400, "tool_choice needs tools", param="tool_choice")
        return [], False, form
    if choice == "none":
        return [], False, form
    if choice in (None, "auto"):
        return tools, False, form
    if form is not None:
        raise ApiError(
            400, "response_format can't hold an answer that must be a call", param="response_format"
        )
    if not isinstance(choice, NamedToolChoice):
        several = body.parallel_tool_calls is not False
        return tools, True, any_function(tools, several=several)
    name = choice.function.name
    tool = next((tool for tool in tools if tool.function.name == name), None)
    if tool is None:
        raise ApiError(
            400, f"tool_choice: there is no function {name[:100]!r} in tools", param="tool_choice"
        )
    return tools, name, one_function(tool)


def _response_format(body: ChatRequest) -> Constraint | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Constraint("json")
    if wanted.json_schema is None:
        raise ApiError(
            400, "response_format of type json_schema needs json_schema", param="response_format"
        )
    return Constraint("json_schema", json.dumps(wanted.json_schema.schema_))


class _Writer:
    """Writes the answers of one request."""

    def __init__(self, plan: Plan, served: Served) -> None:
        self._plan = plan
        self._texts = texts_of(served.tokenizer)
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._fingerprint = f"ft-{served.engine_name}"
        agent = served.agent if plan.tools and not plan.forced else None
        self._readers = [
            AnswerReader(self._reasoning(), agent, self._forced(), plan.most_calls)
            for _ in range(plan.n)
        ]
        self._last: dict[int, GenerationEvent] = {}

    def _reasoning(self) -> ReasoningReader | None:
        form = self._plan.reasoning
        return None if form is None else ReasoningReader(form, opened=self._plan.opened)

    def _forced(self) -> OneCall | ListOfCalls | None:
        forced = self._plan.forced
        if forced is False:
            return None
        return OneCall(forced) if isinstance(forced, str) else ListOfCalls()

    async def whole(self, events: Events) -> ChatCompletion:
        """Wait for all answers and return them."""
        pieces: list[list[Piece]] = [[] for _ in self._readers]
        logprobs: list[list[TokenLogprob]] = [[] for _ in self._readers]
        async with aclosing(events):
            async for index, event in events:
                self._last[index] = event
                pieces[index].append(self._readers[index].feed(event.text))
                logprobs[index] += event.logprobs
        for reader, read in zip(self._readers, pieces, strict=True):
            read.append(reader.close())
        choices = [
            ChatChoice(
                index=index,
                message=reader.message(pieces[index]),
                logprobs=self._logprobs(logprobs[index]),
                finish_reason=self._finish(index),
                stop_reason=self._last[index].stop_reason,
            )
            for index, reader in enumerate(self._readers)
        ]
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._plan.model,
            choices=choices,
            usage=self._usage(),
            system_fingerprint=self._fingerprint,
        )

    async def chunks(self, events: Events, *, usage: bool, always: bool) -> Chunks:
        """Give all answers as events of a stream."""
        async with aclosing(events):
            begun = False
            async for index, event in events:
                if not begun:
                    begun = True
                    for choice in range(self._plan.n):
                        opening = ChatDelta(role="assistant", content="")
                        yield self._chunk(choice, opening, always=always)
                self._last[index] = event
                reader = self._readers[index]
                logprobs = self._logprobs(event.logprobs) if event.logprobs else None
                if (piece := reader.feed(event.text)) or logprobs is not None:
                    yield self._chunk(index, reader.delta(piece), logprobs, always=always)
                if event.finish_reason is not None:
                    if piece := reader.close():
                        yield self._chunk(index, reader.delta(piece), always=always)
                    yield self._chunk(index, ChatDelta(), ends=True, always=always)
        if usage:
            yield event_bytes(self._event([], self._usage()))

    def _chunk(
        self,
        index: int,
        delta: ChatDelta,
        logprobs: ChatLogprobs | None = None,
        *,
        ends: bool = False,
        always: bool,
    ) -> bytes:
        choice = ChatChunkChoice.model_construct(
            index=index,
            delta=delta,
            logprobs=logprobs,
            finish_reason=self._finish(index) if ends else None,
            stop_reason=self._last[index].stop_reason if ends else None,
        )
        return event_bytes(self._event([choice], self._usage() if always else None))

    def _event(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        return ChatChunk.model_construct(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._plan.model,
            system_fingerprint=self._fingerprint,
            choices=choices,
            usage=usage,
        )

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> ChatLogprobs | None:
        top = self._plan.top_logprobs
        return None if top is None else self._texts.chat(tokens, top)

    def _finish(self, index: int) -> FinishReason:
        reason = self._last[index].finish_reason
        if reason == "length":
            return "length"
        return "tool_calls" if self._readers[index].called else "stop"

    def _usage(self) -> Usage:
        events = self._last.values()
        first = self._last.get(0)
        return Usage.of(
            max((event.prompt_tokens for event in events), default=0),
            sum(event.generated_tokens for event in events),
            0 if first is None else first.cached_tokens,
        )
