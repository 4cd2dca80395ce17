"""Answers that are sent piece by piece as server-sent events, and readers that leave."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ft_serve.openai.errors import ApiError
from ft_serve.openai.limits import KEEP_ALIVE_SECONDS

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
SLOW_READER_SECONDS = 5.0
"""What a reader gets beyond the deadline to take what was sent."""

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}

logger = logging.getLogger("ft_serve")

Chunks = AsyncGenerator[bytes, None]


def event_bytes(answer: BaseModel) -> bytes:
    """Return a piece of an answer as one event."""
    return b"data: " + answer.model_dump_json().encode() + b"\n\n"


class EventStream(Response):
    """Sends events until there are no more, the reader leaves, or the deadline has passed.

    Args:
        chunks: the events; closed in any case.
        deadline: by the event loop's clock.
    """

    def __init__(self, chunks: Chunks, deadline: float) -> None:
        super().__init__(None, 200, HEADERS)
        del self.headers["content-length"]
        self._chunks = chunks
        self._deadline = deadline
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send_all(send))
        others = [asyncio.create_task(reader_left(receive)), asyncio.create_task(self._quiet(send))]
        try:
            patience = self._deadline + SLOW_READER_SECONDS - loop.time()
            await asyncio.wait(
                [sending, others[0]], timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in (sending, *others):
                task.cancel()
            results = await asyncio.gather(sending, *others, return_exceptions=True)
        if isinstance(results[0], OSError):
            logger.debug("the reader left while it was written to: %s", results[0])
        elif isinstance(results[0], Exception):
            raise results[0]

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._chunks):
            try:
                async for chunk in self._chunks:
                    await self._send(send, chunk)
            except ApiError as error:
                await self._send(send, _error_event(error))
            except OSError:
                raise
            except Exception as error:
                logger.error("a streamed answer failed", exc_info=error)
                await self._send(send, _error_event(ApiError(500, "the server failed")))
        await self._send(send, DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sent_at = asyncio.get_running_loop().time()

    async def _quiet(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silence = loop.time() - self._sent_at
            if silence >= KEEP_ALIVE_SECONDS:
                await self._send(send, COMMENT)
                silence = 0.0
            await asyncio.sleep(KEEP_ALIVE_SECONDS - silence)


def _error_event(error: ApiError) -> bytes:
    return b"data: " + json.dumps(error.body, ensure_ascii=False).encode() + b"\n\n"


async def reader_left(receive: Receive) -> None:
    """Return once the client has closed its connection."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


async def attended(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do work as long as somebody waits for it."""
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(reader_left(request.receive))
    try:
        await asyncio.wait([doing, leaving], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        return Response(status_code=499)  # nobody reads it; the log has nginx's number
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def begin_stream(chunks: Chunks, deadline: float) -> EventStream:
    """Return a stream once its first event is there, so that what fails before is a plain error."""
    try:
        first = await anext(chunks)
    except BaseException:
        await chunks.aclose()
        raise

    async def all_chunks() -> Chunks:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return EventStream(all_chunks(), deadline)
