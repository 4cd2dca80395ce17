"""Who answers on a chat page: an engine of this process, or a server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from ft_core.agents import ParsedAnswer, agent_of, parse
from ft_core.engine import Capability, Engine, FinishReason, GenerationRequest, Sampling
from ft_core.examples import Example, Message
from ft_core.media import MediaTemplate, encode_question
from ft_core.samples import MediumKind, Tokens
from ft_core.templates.template import Template

T = TypeVar("T")

BASE = "base"
"""The voice of the model without an adapter."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer; the last one says why it ended."""

    text: str
    finish_reason: FinishReason | None = None
    generated_tokens: int = 0


class Answerer(Protocol):
    """What a chat page asks."""

    @property
    def voices(self) -> Sequence[str]:
        """Who can be asked, the one that answers first: an adapter's name, or ``base``."""
        ...

    @property
    def chats(self) -> bool:
        """Whether the model knows conversations; one that doesn't only continues texts."""
        ...

    @property
    def takes_tools(self) -> bool:
        """Whether ``answer`` may be given functions to call."""
        ...

    @property
    def media(self) -> frozenset[MediumKind]:
        """What may be attached to a message."""
        ...

    def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        voice: str,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Piece]:
        """Answer the last message."""
        ...

    def read(self, answer: str) -> ParsedAnswer:
        """Return what an answer says, and which functions it calls."""
        ...

    def complete(self, text: str, sampling: Sampling, voice: str) -> AsyncIterator[Piece]:
        """Continue a text."""
        ...


@dataclass(frozen=True, slots=True)
class EngineAnswerer:
    """Asks an engine in the model's own chat format.

    Attributes:
        engine: generates; the adapters of one loaded model are its voices.
        template: the chat format.
        preferred: the adapter that answers first; ``None`` is the model as it was loaded.
    """

    engine: Engine
    template: Template
    preferred: str | None = None

    @property
    def voices(self) -> Sequence[str]:
        """The preferred adapter, the others, and the model without one."""
        adapters = self.engine.adapters
        if self.preferred is None:
            return (BASE, *adapters)
        return (self.preferred, *(name for name in adapters if name != self.preferred), BASE)

    @property
    def chats(self) -> bool:
        """Whether the chat format has more than one round."""
        return self.template.multi_turn

    @property
    def takes_tools(self) -> bool:
        """Whether the chat format goes beyond one round, which calls and their results are."""
        return self.template.multi_turn

    @property
    def media(self) -> frozenset[MediumKind]:
        """What the model's processor takes; nothing if it has none, or the engine knows texts only."""
        takes = Capability.MEDIA in self.engine.capabilities
        template = self.template
        return (
            template.processor.kinds
            if takes and isinstance(template, MediaTemplate)
            else frozenset()
        )

    def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        voice: str,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Piece]:
        """Answer the last message; a format of one round gets it alone."""
        if not self.template.multi_turn:
            messages = [m for m in messages if m.role == "system"] + [messages[-1]]
        if tools:
            sampling = replace(
                sampling, stop=(*sampling.stop, *agent_of(self.template.tools_prompt).stop)
            )
        asked = Example(messages=tuple(messages), tools=tuple(tools))
        return self._ask(lambda: encode_question(self.template, asked), sampling, voice)

    def read(self, answer: str) -> ParsedAnswer:
        """Return what an answer says, and which functions it calls."""
        return parse(answer, agent_of(self.template.tools_prompt))

    def complete(self, text: str, sampling: Sampling, voice: str) -> AsyncIterator[Piece]:
        """Continue a text without any chat format."""

        def encoded() -> Tokens:
            ids = self.template.tokenizer.encode(text)
            return Tokens(ids, [0.0] * len(ids))

        return self._ask(encoded, sampling, voice)

    async def _ask(
        self, encode: Callable[[], Tokens], sampling: Sampling, voice: str
    ) -> AsyncIterator[Piece]:
        asked = await asyncio.to_thread(encode)  # a video takes long to read
        request = GenerationRequest(
            asked.input_ids,
            replace(sampling, stop=(*sampling.stop, *self.template.stop_strings)),
            None if voice == BASE else voice,
            media=asked.media,
        )
        async for event in self.engine.generate(request):
            yield Piece(event.text, event.finish_reason, event.generated_tokens)


async def until_stopped(pieces: AsyncIterator[T], stopped: asyncio.Event) -> AsyncIterator[T]:
    """Pass pieces on until they end or somebody stops them; the source is closed either way."""
    waiting = asyncio.ensure_future(stopped.wait())
    try:
        while True:
            step = asyncio.ensure_future(anext(pieces))
            await asyncio.wait({step, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                step.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await step
                return
            try:
                piece = step.result()
            except StopAsyncIteration:
                return
            yield piece
    finally:
        waiting.cancel()
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def together(
    sources: Sequence[AsyncIterator[T]],
) -> AsyncIterator[tuple[int, T]]:
    """Read several sources at the same time; yield each item with the position of its source.

    Raises:
        Exception: what a source raised; the others are closed.
    """
    queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue()

    async def read(position: int, source: AsyncIterator[T]) -> None:
        try:
            async for item in source:
                await queue.put((position, item))
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.ensure_future(read(i, source)) for i, source in enumerate(sources)]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
