"""An engine that answers through a server: one of its own child processes, or one somewhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from ft_core.engine import (
    Capability,
    GenerationEvent,
    GenerationRequest,
    Pooling,
    TokenScores,
)
from ft_core.errors import ModelError, UsageError
from ft_serve.engines.child.process import State
from ft_serve.engines.remote.connection import Connection
from ft_serve.engines.remote.dialect import Dialect, Piece, Wanted
from ft_serve.engines.remote.media import PATH as MEDIA_PATH
from ft_serve.engines.remote.media import VllmMedia
from ft_serve.engines.sampling_values import check_sampling
from ft_serve.engines.stop_strings import StopStrings


class Server(Protocol):
    """Where a server is, and whether it is there now."""

    @property
    def url(self) -> str:
        """Its address, without a path."""
        ...

    @property
    def state(self) -> State:
        """Whether it answers."""
        ...

    @property
    def reason(self) -> str:
        """Why it doesn't; may be empty."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Elsewhere:
    """A server that somebody else runs.

    Args:
        url: its address, without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.state = State.READY
        self.reason = ""

    def close(self) -> None:
        """Don't use it any more."""
        self.state, self.reason = State.CLOSED, "the engine was closed"


@dataclass(frozen=True, slots=True)
class Served:
    """What a server offers.

    Attributes:
        model: its name of the model.
        adapters: its names of adapters.
        positions: tokens of prompt and answer together; ``None`` where it doesn't tell.
    """

    model: str
    adapters: tuple[str, ...] = ()
    positions: int | None = None


class RemoteEngine:
    """Answers through a server (``ft_core.engine.Engine``); prompts go there as token ids.

    Args:
        server: where it is.
        dialect: how it is spoken to.
        served: what it offers.
        stop_token_ids: tokens that end an answer, as the template gives them.
        key: the server's.
        media: how it is asked about images, videos and audios; ``None`` if it isn't.
    """

    def __init__(
        self,
        server: Server,
        dialect: Dialect,
        served: Served,
        *,
        stop_token_ids: Collection[int],
        key: str | None = None,
        media: VllmMedia | None = None,
    ) -> None:
        self._server = server
        self._dialect = dialect
        self._served = served
        self._media = media
        self._stop_token_ids = frozenset(stop_token_ids)
        self._connection = Connection(dialect.name, key)
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the server can do."""
        own = {Capability.ADAPTERS: bool(self.adapters), Capability.MEDIA: self._media is not None}
        return self._dialect.capabilities | {name for name, there in own.items() if there}

    @property
    def ready(self) -> bool:
        """Whether it answers; not while a server that crashed starts again."""
        return not self._closed and self._server.state is State.READY

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a request may give as its adapter."""
        return self._served.adapters

    @property
    def scored_tokens(self) -> int | None:
        """The model's length without the token that a server generates behind what it scores."""
        return None if self._served.positions is None else self._served.positions - 1

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Answer one request. Closing the iterator early ends it at the server as well.

        Raises:
            UsageError: the request can't be answered as it is.
            ModelError: the server failed on it, or isn't there.
        """
        self._check(request)
        sampling = request.sampling
        own = frozenset[int]() if sampling.ignore_eos else self._stop_token_ids
        wanted = Wanted(
            request,
            request.adapter or self._served.model,
            sorted(own.union(sampling.stop_token_ids)),
            self._room(request),
        )
        stop = StopStrings(() if self._dialect.finds_stop_strings else sampling.stop)
        async with aclosing(self._pieces(wanted)) as pieces:
            async for event in _Counts(len(request.token_ids), stop).events(pieces):
                yield event
                if event.finish_reason is not None:
                    return
        raise ModelError(f"{self._dialect.name} ended the answer without saying why")

    async def _pieces(self, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        """Ask, and give what the events of an answer say; up to its end where nothing of interest follows."""
        ends_with_reason = Capability.TOKENS in self._dialect.capabilities
        media = self._media if wanted.request.media else None
        path, body = (
            (self._dialect.path, self._dialect.body(wanted))
            if media is None
            # Files are read and made smaller: work that other answers shouldn't wait for.
            else (MEDIA_PATH, await asyncio.to_thread(media.body, wanted))
        )
        async with aclosing(self._connection.stream(self._server.url + path, body)) as events:
            async for data in events:
                piece = self._dialect.read(data) if media is None else media.read(data, wanted)
                if piece is not None:
                    yield piece
                    if ends_with_reason and piece.finish_reason is not None:
                        return

    async def score(
        self, token_ids: Sequence[Sequence[int]], *, top: int = 0, adapter: str | None = None
    ) -> Sequence[TokenScores]:
        """Return the log-probability of every token of every sequence, the first token's being 0.

        Raises:
            UsageError: a sequence is empty or longer than the model allows.
            ModelError: the server can't, failed, or isn't there.
        """
        for sequence in token_ids:
            self._check(GenerationRequest(sequence, adapter=adapter))
        model = adapter or self._served.model
        bodies = [self._dialect.score_body(sequence, model, top) for sequence in token_ids]
        url = self._server.url + self._dialect.path
        answers = await asyncio.gather(*(self._connection.post(url, body) for body in bodies))
        return [
            self._dialect.read_scores(answer, sequence, top)
            for answer, sequence in zip(answers, token_ids, strict=True)
        ]

    async def embed(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "mean",
        adapter: str | None = None,
    ) -> Sequence[Sequence[float]]:
        """Refuse: a server that generates gives no vectors.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{self._dialect.name} gives no embeddings here; use --infer_backend pt for them"
        )

    async def close(self) -> None:
        """End the server if it is a child, and refuse everything from now on."""
        self._closed = True
        await asyncio.to_thread(self._server.close)

    def _check(self, request: GenerationRequest) -> None:
        if not self.ready:
            reason = self._server.reason or "the engine was closed"
            raise ModelError(f"no answer now: {reason}")
        if request.media and self._media is None:
            raise UsageError(
                f"{self._dialect.name} gets no images, videos and audios here; use --infer_backend pt or vllm"
            )
        check_sampling(request.sampling)
        if not request.token_ids or min(request.token_ids) < 0:
            raise UsageError("the prompt has no tokens, or a negative one")
        if request.adapter is not None and request.adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise UsageError(f"adapter {request.adapter!r} is not loaded; there are: {known}")

    def _room(self, request: GenerationRequest) -> int:
        wanted = request.sampling.max_new_tokens
        if self._served.positions is None:
            if wanted is None:
                raise UsageError(
                    f"max_new_tokens None: {self._dialect.name} doesn't tell the model's length; give a number"
                )
            return wanted
        room = self._served.positions - len(request.token_ids)
        if room < 1:
            raise UsageError(
                f"the prompt has {len(request.token_ids)} tokens and the model takes {self._served.positions} "
                "with the answer; shorten the prompt, or clear the history"
            )
        return room if wanted is None else min(room, wanted)


class _Counts:
    """Turns what a server says into events that count.

    Args:
        prompt_tokens: of the request.
        stop: finds the stop strings that the server doesn't.
    """

    def __init__(self, prompt_tokens: int, stop: StopStrings) -> None:
        self._prompt_tokens = prompt_tokens
        self._stop = stop
        self._generated = 0

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[GenerationEvent]:
        """Give the events; the last one when all is known of it."""
        last: GenerationEvent | None = None
        async for piece in pieces:
            if last is not None:
                self._count(piece)
            elif (event := self._event(piece)) is not None:
                if event.finish_reason is None:
                    yield event
                    continue
                last = event
                if self._stop.found:
                    break
        if last is not None:
            yield replace(last, generated_tokens=self._generated)

    def _count(self, piece: Piece) -> None:
        if piece.generated_tokens is not None:
            self._generated = piece.generated_tokens
        else:
            # A server that doesn't tell its tokens sends one at a time, more or less.
            self._generated += len(piece.token_ids) or bool(piece.text)

    def _event(self, piece: Piece) -> GenerationEvent | None:
        text, reason = self._stop.push(piece.text), piece.finish_reason
        ended_by = piece.stop_reason
        if self._stop.found:
            reason, ended_by = "stop", self._stop.found
        elif reason is not None:
            text += self._stop.finish()
        self._count(piece)
        if not text and not piece.token_ids and reason is None:
            return None
        return GenerationEvent(
            text,
            tuple(piece.token_ids),
            reason,
            self._prompt_tokens,
            self._generated,
            logprobs=piece.logprobs,
            stop_reason=ended_by,
        )


def read_served(data: Mapping[str, object], wanted: str | None) -> tuple[Served, str]:
    """Read a server's list of models.

    Args:
        data: what ``/v1/models`` says.
        wanted: the model that is asked for; by default the only one that is no adapter.

    Returns:
        What is offered, and who says so (``owned_by``).

    Raises:
        UsageError: the model isn't there, or there are several and none was named.
    """
    cards = [card for card in _list(data.get("data")) if isinstance(card.get("id"), str)]
    bases = [card for card in cards if not card.get("parent")]
    names = ", ".join(str(card["id"]) for card in cards) or "none"
    if wanted is None:
        if len(bases) != 1:
            raise UsageError(f"--engine_model: say which model of the server answers: {names}")
        chosen = bases[0]
    else:
        found = [card for card in cards if card["id"] == wanted]
        if not found:
            raise UsageError(f"--engine_model {wanted}: the server has no such model, but: {names}")
        chosen = found[0]
    adapters = [str(card["id"]) for card in cards if card.get("parent") == chosen["id"]]
    length = chosen.get("max_model_len")
    return (
        Served(str(chosen["id"]), tuple(adapters), length if isinstance(length, int) else None),
        str(chosen.get("owned_by", "")),
    )


def _list(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
