# ruff: noqa: D102 (the names of the tests say what they check)
"""For tests: an engine without a model, and the suite that every engine has to pass."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from ft_core.engine import (
    Capability,
    Constraint,
    Engine,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Pooling,
    Sampling,
    TokenScores,
)
from ft_core.errors import FtError, ModelError, UsageError

Reply = Callable[[GenerationRequest], str]


class MockEngine:
    """Answers with given text, one character a token, without a model.

    Args:
        reply: the text, or what makes it from the request; it may raise an ``FtError``.
        delay: seconds before each event.
        crash_after: after this many events of all requests the engine is dead.
        adapters: names that requests may give.

    Attributes:
        requests: all requests so far.
        active, most_active: answers under way now, and at the busiest moment.
        cancelled: answers whose reader left before the end.
    """

    def __init__(
        self,
        reply: str | Reply = "hello",
        *,
        delay: float = 0.0,
        crash_after: int | None = None,
        adapters: Sequence[str] = (),
    ) -> None:
        self._reply = reply
        self._adapters = tuple(adapters)
        self._delay = delay
        self._events_left = crash_after
        self._closed = False
        self.requests: list[GenerationRequest] = []
        self.active = self.most_active = self.cancelled = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        """It streams, scores, embeds and tells its tokens."""
        able = {Capability.STREAM, Capability.SCORE, Capability.EMBED, Capability.TOKENS}
        return frozenset(able | {Capability.ADAPTERS} if self._adapters else able)

    @property
    def ready(self) -> bool:
        """Until it is closed or has crashed."""
        return not self._closed and (self._events_left is None or self._events_left >= 0)

    @property
    def adapters(self) -> tuple[str, ...]:
        """As they were given; an answer doesn't depend on them."""
        return self._adapters

    @property
    def scored_tokens(self) -> int | None:
        """It takes sequences of any length."""
        return None

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Give the reply, character by character."""
        self._check(request.token_ids)
        if request.adapter is not None and request.adapter not in self._adapters:
            raise UsageError(f"adapter {request.adapter!r} is not loaded")
        self.requests.append(request)
        text = self._reply if isinstance(self._reply, str) else self._reply(request)
        text, reason = _cut(text, request.sampling)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        finished = False
        try:
            for index, character in enumerate(text or " "):
                await self._pause()
                finished = index + 1 >= len(text)
                yield GenerationEvent(
                    character if text else "",
                    (ord(character),),
                    reason if finished else None,
                    len(request.token_ids),
                    index + 1,
                )
        finally:
            self.active -= 1
            self.cancelled += not finished

    async def score(
        self, token_ids: Sequence[Sequence[int]], *, top: int = 0, adapter: str | None = None
    ) -> Sequence[TokenScores]:
        """Score every token but the first -1, itself being the likeliest."""
        for sequence in token_ids:
            self._check(sequence)
        return [
            TokenScores(
                [0.0] + [-1.0] * (len(sequence) - 1),
                [(), *(((token, -1.0),) for token in sequence[1:])] if top else (),
            )
            for sequence in token_ids
        ]

    async def embed(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "mean",
        adapter: str | None = None,
    ) -> Sequence[Sequence[float]]:
        """Return the mean, or the last, of the ids as a vector of one number."""
        for sequence in token_ids:
            self._check(sequence)
        return [[sum(ids) / len(ids) if pooling == "mean" else float(ids[-1])] for ids in token_ids]

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def _check(self, token_ids: Sequence[int]) -> None:
        if self._closed:
            raise ModelError("the engine was closed; make another one")
        if not token_ids or min(token_ids) < 0:
            raise UsageError("the prompt has no tokens, or a negative one")

    async def _pause(self) -> None:
        await asyncio.sleep(self._delay)
        if self._events_left is not None:
            self._events_left -= 1
            if self._events_left < 0:
                raise ModelError("the engine stopped: it was told to")


def _cut(text: str, sampling: Sampling) -> tuple[str, FinishReason]:
    reason: FinishReason = "stop"
    if sampling.max_new_tokens is not None and len(text) > sampling.max_new_tokens:
        text, reason = text[: sampling.max_new_tokens], "length"
    places = [place for stop in sampling.stop if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)], "stop") if places else (text, reason)


async def collect(engine: Engine, request: GenerationRequest) -> list[GenerationEvent]:
    """Return all events of one request."""
    return [event async for event in engine.generate(request)]


async def complete(engine: Engine, token_ids: Sequence[int], sampling: Sampling) -> str:
    """Return the whole answer to one prompt."""
    events = await collect(engine, GenerationRequest(token_ids, sampling))
    return "".join(event.text for event in events)


async def _numbered(
    stream: AsyncIterator[GenerationEvent],
) -> AsyncIterator[tuple[int, GenerationEvent]]:
    number = 0
    async for event in stream:
        yield number, event
        number += 1


class EngineConformance:
    """What every engine has to do. A test module derives a ``Test…`` class from it.

    It gives two fixtures: ``engine``, and ``prompts``, at least four different prompts as token ids whose
    greedy answers have at least six tokens and are not all the same.
    """

    greedy = Sampling(max_new_tokens=12)
    sampled = Sampling(max_new_tokens=12, temperature=1.0, seed=7)

    async def test_it_is_an_engine(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)
        assert all(isinstance(item, Capability) for item in engine.capabilities)

    async def test_only_the_last_event_says_why_it_ended(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        events = await collect(engine, GenerationRequest(prompts[0], self.greedy))
        assert [event.finish_reason for event in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1].finish_reason in ("stop", "length")

    async def test_events_count_tokens(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        events = await collect(engine, GenerationRequest(prompts[0], self.greedy))
        seen = 0
        for event in events:
            seen += len(event.token_ids)
            assert event.prompt_tokens == len(prompts[0])
            if Capability.TOKENS in engine.capabilities:
                assert event.generated_tokens == seen
        assert 1 <= events[-1].generated_tokens <= 12

    async def test_an_answer_is_no_longer_than_asked(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        sampling = replace(self.greedy, max_new_tokens=3)
        events = await collect(engine, GenerationRequest(prompts[0], sampling))
        assert (events[-1].generated_tokens, events[-1].finish_reason) == (3, "length")

    async def test_greedy_answers_are_the_same_alone_and_together(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        alone = [await complete(engine, prompt, self.greedy) for prompt in prompts]
        together = await asyncio.gather(*(complete(engine, p, self.greedy) for p in prompts))
        assert list(together) == alone

    async def test_a_seed_repeats_an_answer_whatever_else_runs(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        alone = await complete(engine, prompts[0], self.sampled)
        others = (complete(engine, p, replace(self.sampled, seed=None)) for p in prompts[1:])
        together = await asyncio.gather(complete(engine, prompts[0], self.sampled), *others)
        assert together[0] == alone

    async def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        whole = await complete(engine, prompts[0], self.greedy)
        stop = whole[len(whole) // 2 :][:3]
        request = GenerationRequest(prompts[0], replace(self.greedy, stop=("never in it", stop)))
        events = await collect(engine, request)
        assert "".join(event.text for event in events) == whole[: whole.index(stop)]
        assert events[-1].finish_reason == "stop"

    async def test_a_bad_request_is_refused_and_hurts_no_other(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        want = await complete(engine, prompts[0], self.greedy)
        results = await asyncio.gather(
            complete(engine, prompts[0], self.greedy),
            complete(engine, [], self.greedy),
            complete(engine, [-1], self.greedy),
            return_exceptions=True,
        )
        assert results[0] == want
        assert isinstance(results[1], FtError)
        assert isinstance(results[2], FtError)

    async def test_a_reader_may_leave(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        want = await complete(engine, prompts[1], self.greedy)
        stream = engine.generate(
            GenerationRequest(prompts[0], replace(self.greedy, max_new_tokens=200))
        )
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        assert await complete(engine, prompts[1], self.greedy) == want

    async def test_scores_are_log_probabilities(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        if Capability.SCORE not in engine.capabilities:
            return
        scores = await engine.score(prompts)
        assert [len(item.logprobs) for item in scores] == [len(prompt) for prompt in prompts]
        assert all(item.logprobs[0] == 0 for item in scores)
        assert all(value <= 0 for item in scores for value in item.logprobs)

        likely = await engine.score(prompts[:1], top=2)
        assert likely[0].top[0] == ()
        for best, value in list(zip(likely[0].top, likely[0].logprobs, strict=True))[1:]:
            assert 1 <= len(best) <= 2
            assert best[0][1] >= value

    async def test_logprobs_are_those_that_scoring_gives(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        if not {Capability.LOGPROBS, Capability.SCORE} <= engine.capabilities:
            return
        request = GenerationRequest(prompts[0], replace(self.greedy, logprobs=3))
        events = await collect(engine, request)
        assert all(len(event.logprobs) == len(event.token_ids) for event in events)
        reported = [item for event in events for item in event.logprobs]
        answer = [item.token_id for item in reported]
        assert answer == [token for event in events for token in event.token_ids]
        assert all(item.top[0] == (item.token_id, item.logprob) for item in reported)
        assert all(len(item.top) == 3 for item in reported)
        (scores,) = await engine.score([[*prompts[0], *answer]])
        wanted = scores.logprobs[len(prompts[0]) :]
        differences = [abs(x.logprob - y) for x, y in zip(reported, wanted, strict=True)]
        assert max(differences) < 1e-3

    async def test_answers_follow_their_constraints(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        if Capability.CONSTRAINTS not in engine.capabilities:
            return
        schema = {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        }
        long = replace(self.sampled, max_new_tokens=200)
        texts = await asyncio.gather(
            complete(
                engine,
                prompts[0],
                replace(long, constraint=Constraint("json_schema", json.dumps(schema))),
            ),
            complete(engine, prompts[1], replace(long, constraint=Constraint("regex", "[a-c]{5}"))),
            complete(engine, prompts[2], replace(long, constraint=Constraint("json"))),
            complete(engine, prompts[3], self.greedy),
        )
        assert isinstance(json.loads(texts[0])["ok"], bool)
        assert re.fullmatch("[a-c]{5}", texts[1])
        assert texts[2].startswith("{")
        assert texts[3] == await complete(engine, prompts[3], self.greedy)
        with_error = replace(long, constraint=Constraint("regex", "(("))
        try:
            await complete(engine, prompts[0], with_error)
        except UsageError:
            return
        raise AssertionError("an expression that is none was taken")

    async def test_embeddings_depend_on_the_text_alone(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        if Capability.EMBED not in engine.capabilities:
            return
        poolings: tuple[Pooling, ...] = ("mean", "last")
        for pooling in poolings:
            together = await engine.embed(prompts, pooling=pooling)
            (alone,) = await engine.embed(prompts[:1], pooling=pooling)
            assert {len(vector) for vector in together} == {len(alone)}
            assert max(abs(x - y) for x, y in zip(alone, together[0], strict=True)) < 1e-3

    async def test_unknown_adapters_are_refused(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        assert (Capability.ADAPTERS in engine.capabilities) == bool(engine.adapters)
        for name in (None, *engine.adapters):
            events = await collect(engine, GenerationRequest(prompts[0], self.greedy, name))
            assert events[-1].finish_reason is not None
        try:
            await collect(engine, GenerationRequest(prompts[0], self.greedy, "not loaded"))
        except UsageError:
            return
        raise AssertionError("an unknown adapter answered")

    async def test_random_cancels_leave_it_working(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        want = [await complete(engine, prompt, self.greedy) for prompt in prompts]
        source = random.Random(3)

        async def one(index: int, leaves_after: int | None) -> str | None:
            for _ in range(source.randrange(5)):
                await asyncio.sleep(0)
            stream = engine.generate(GenerationRequest(prompts[index], self.greedy))
            text = ""
            async for number, event in _numbered(stream):
                text += event.text
                if number == leaves_after:
                    await stream.aclose()  # type: ignore[attr-defined]
                    return None
            return text

        plan = [
            (source.randrange(len(prompts)), source.choice([None, None, 0, 2])) for _ in range(40)
        ]
        got = await asyncio.gather(*(one(*item) for item in plan))
        for (index, _), text in zip(plan, got, strict=True):
            assert text in (None, want[index])
        assert engine.ready

    async def test_a_closed_engine_says_so(
        self, engine: Engine, prompts: Sequence[Sequence[int]]
    ) -> None:
        assert engine.ready
        await engine.close()
        assert not engine.ready
        try:
            await complete(engine, prompts[0], self.greedy)
        except FtError:
            return
        raise AssertionError("a closed engine answered")
