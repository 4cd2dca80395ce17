"""Requests on their way through the engine: who is admitted, for how long, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TypeVar, cast

from ft_core.engine import GenerationEvent, GenerationRequest
from ft_core.errors import FtError
from ft_serve.openai.errors import SETTLED, ApiError, from_failure, overloaded
from ft_serve.openai.limits import Limits
from ft_serve.openai.metrics import Metrics
from ft_serve.openai.served import Served

T = TypeVar("T")

Events = AsyncGenerator[tuple[int, GenerationEvent], None]
"""Number of the request, and what it gave."""


class Answering:
    """Everything that is being answered.

    Args:
        limits: how much that may be.
        metrics: where it is counted.

    Attributes:
        waiting: answers without a token yet.
        running: answers with some.
        queued_tokens: tokens of the prompts of those that wait.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.waiting = self.running = self.queued_tokens = 0
        self._limits = limits
        self._metrics = metrics
        self._clocks: set[asyncio.Timeout] = set()
        self._aborting = False
        metrics.watch("num_requests_running", "Answers under way.", lambda: self.running)
        metrics.watch("num_requests_waiting", "Answers that wait.", lambda: self.waiting)

    def deadline(self) -> float:
        """Return when a request that arrives now must be done, by the event loop's clock."""
        return asyncio.get_running_loop().time() + self._limits.seconds

    def abort(self) -> None:
        """End everything that is under way: the server stops."""
        self._aborting = True
        for clock in self._clocks:
            clock.reschedule(0)

    async def within(self, deadline: float, work: Awaitable[T]) -> T:
        """Wait for a result until the deadline.

        Raises:
            ApiError: it passed, or the server stops.
        """
        try:
            async with asyncio.timeout_at(0 if self._aborting else deadline) as clock:
                self._clocks.add(clock)
                try:
                    return await work
                finally:
                    self._clocks.discard(clock)
        except TimeoutError:
            if self._aborting:
                raise overloaded("the server is stopping", code="draining") from None
            raise ApiError(
                504,
                f"not done within {self._limits.seconds:g} seconds; ask for less",
                code="deadline_exceeded",
                headers=SETTLED,
            ) from None

    async def events(
        self, served: Served, requests: Sequence[GenerationRequest], model: str, deadline: float
    ) -> Events:
        """Answer requests at the same time and give their events as they come.

        Closing the generator ends the answers that are under way.

        Args:
            served: the model.
            requests: what the engine is asked.
            model: name that is counted under.
            deadline: as ``deadline`` gave it.

        Raises:
            ApiError: they aren't admitted, can't be answered, or take too long.
        """
        self._admit(requests)
        streams = [self._one(served, request, model) for request in requests]
        merged = _numbered(streams[0]) if len(streams) == 1 else _merged(streams)
        async with aclosing(merged):
            while True:
                try:
                    item = await self.within(deadline, anext(merged))
                except StopAsyncIteration:
                    return
                yield item

    def _admit(self, requests: Sequence[GenerationRequest]) -> None:
        if len(requests) > self._limits.requests:
            raise ApiError(
                400,
                f"{len(requests):,} answers in one request; this server takes at most {self._limits.requests:,}",
                code="too_many_answers",
            )
        if self.waiting + self.running + len(requests) > self._limits.requests:
            self._metrics.rejected.labels("queue_full").inc()
            raise overloaded("too many requests are under way; send it again in a moment")
        tokens = sum(len(request.token_ids) for request in requests)
        if self.queued_tokens and self.queued_tokens + tokens > self._limits.queued_tokens:
            self._metrics.rejected.labels("queue_tokens").inc()
            raise overloaded("too many tokens are waiting; send it again in a moment")

    async def _one(
        self, served: Served, request: GenerationRequest, model: str
    ) -> AsyncGenerator[GenerationEvent, None]:
        # Engines' generate is an async generator; the protocol promises less than is closed here.
        stream = cast("AsyncGenerator[GenerationEvent, None]", served.engine.generate(request))
        measured = self._metrics.start(model)
        waits = True
        finished = False
        self.waiting += 1
        self.queued_tokens += len(request.token_ids)
        try:
            async with aclosing(stream):
                async for event in stream:
                    if waits:
                        waits = self._begin(request)
                    measured.note(event)
                    finished = event.finish_reason is not None
                    yield event
        except FtError as error:
            finished = True
            measured.fail()
            raise from_failure(error, ready=served.engine.ready) from error
        finally:
            if waits:
                self._begin(request)
            self.running -= 1
            if not finished:
                measured.left()

    def _begin(self, request: GenerationRequest) -> bool:
        self.waiting -= 1
        self.running += 1
        self.queued_tokens -= len(request.token_ids)
        return False

    @contextmanager
    def counted(self, token_ids: Sequence[Sequence[int]]) -> Iterator[None]:
        """Count work that isn't an answer, such as scores, as one request that is under way."""
        self._admit([GenerationRequest(ids) for ids in token_ids[:1]])
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


async def _numbered(
    stream: AsyncGenerator[GenerationEvent, None],
) -> AsyncGenerator[tuple[int, GenerationEvent], None]:
    async with aclosing(stream):
        async for event in stream:
            yield 0, event


async def _merged(
    streams: Sequence[AsyncGenerator[GenerationEvent, None]],
) -> AsyncGenerator[tuple[int, GenerationEvent], None]:
    """Give the events of several answers in the order they come; the first failure ends them all."""
    queue: asyncio.Queue[tuple[int, GenerationEvent] | Exception | None] = asyncio.Queue()

    async def pump(index: int, stream: AsyncGenerator[GenerationEvent, None]) -> None:
        try:
            async with aclosing(stream):
                async for event in stream:
                    queue.put_nowait((index, event))
        except Exception as error:  # handed to whoever reads
            queue.put_nowait(error)
        else:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(pump(*item)) for item in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
