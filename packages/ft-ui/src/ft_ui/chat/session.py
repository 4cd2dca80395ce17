"""One person's conversation with a model: asking, stopping, retrying, as streams of conversations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ft_core.engine import Sampling
from ft_ui.chat.answering import Answerer, Piece, together, until_stopped
from ft_ui.chat.messages import Conversation


@dataclass(slots=True)
class Stops:
    """What is being answered for whom, so that it can be stopped.

    Attributes:
        running: an event for each session whose answer is being written.
    """

    running: dict[str, asyncio.Event] = field(default_factory=dict)

    @contextmanager
    def watching(self, session: str) -> Iterator[asyncio.Event]:
        """Let a session's answer be stopped; one that is still under way is stopped now."""
        self.stop(session)
        event = self.running[session] = asyncio.Event()
        try:
            yield event
        finally:
            if self.running.get(session) is event:
                del self.running[session]

    def stop(self, session: str) -> None:
        """Stop the answer of a session; without one nothing happens."""
        if (event := self.running.get(session)) is not None:
            event.set()


@dataclass(slots=True)
class Speed:
    """How fast the last answer came."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / max(self.seconds, 1e-6)


async def answered(
    conversation: Conversation,
    answerer: Answerer,
    sampling: Sampling,
    voice: str,
    stopped: asyncio.Event,
    speed: Speed,
) -> AsyncIterator[Conversation]:
    """Stream the answer to the last question of a conversation whose answer is being written."""
    start = time.monotonic()
    pieces = answerer.answer(conversation.prompt(), sampling, voice, conversation.tools)
    async for piece in until_stopped(pieces, stopped):
        conversation = _with(conversation, piece, answerer)
        speed.tokens, speed.seconds = piece.generated_tokens, time.monotonic() - start
        yield conversation
    if conversation.streaming:
        yield conversation.stop()


async def answered_by_two(
    conversation: Conversation,
    answerer: Answerer,
    sampling: Sampling,
    voices: Sequence[str],
    stopped: asyncio.Event,
) -> AsyncIterator[tuple[Conversation, Conversation]]:
    """Stream the answers of two voices to the last question; they are computed at the same time."""
    sides = [conversation, conversation]
    prompt = conversation.prompt()
    tools = conversation.tools
    sources = [answerer.answer(prompt, sampling, voice, tools) for voice in voices]
    async for side, piece in until_stopped(together(sources), stopped):
        sides[side] = _with(sides[side], piece, answerer)
        yield sides[0], sides[1]
    yield sides[0].stop(), sides[1].stop()


def joined(left: Conversation, right: Conversation) -> Conversation:
    """Return one conversation in which the last question has both answers, the left one shown."""
    answer = right.turns[-1].answer
    both = left.retry().append(answer.text)
    both = both.finish("stop") if answer.state == "done" else both.stop()
    return both.show(0)


def _with(conversation: Conversation, piece: Piece, answerer: Answerer) -> Conversation:
    if piece.text:
        conversation = conversation.append(piece.text)
    if piece.finish_reason is None:
        return conversation
    conversation = conversation.finish(piece.finish_reason)
    if not conversation.tools or piece.finish_reason != "stop":
        return conversation
    return conversation.called(answerer.read(conversation.turns[-1].answers[-1].text))
