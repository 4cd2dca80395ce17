"""One request on its way: what it has generated, when it ends, and where its events go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.engine import FinishReason, GenerationEvent, GenerationRequest, TokenLogprob
from ft_core.errors import FtError, ModelError
from ft_serve.engines.pt.constraints import Matcher
from ft_serve.engines.pt.detokenize import Decoder, TextStream
from ft_serve.engines.pt.sampling import RowSampler
from ft_serve.engines.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer needs to know about the engine.

    Attributes:
        stop_token_ids: tokens that end any answer.
        max_new_tokens: of this answer.
    """

    stop_token_ids: frozenset[int]
    max_new_tokens: int


Delivery = GenerationEvent | FtError


def as_failure(error: Exception) -> FtError:
    """Return the error as one that is addressed to whoever sent the request."""
    if isinstance(error, FtError):
        return error
    return ModelError(f"the model failed on this request: {type(error).__name__}: {error}")


class Answer:
    """A request and its state. The worker's thread owns it; ``receive`` belongs to the caller's loop.

    ``cancelled`` is set by the caller when nobody waits any more, ``finished`` when the last event or the
    failure was given out, ``alone`` when the prompt must not share a forward pass with other prompts.

    Args:
        request: the request, already checked.
        limits: when it ends at the latest.
        seed: of its random numbers.
        decoder: the tokenizer.
        matcher: what the answer must be.
        features: what the model gets of the prompt's images, videos and audios, by the name of its argument.
    """

    def __init__(
        self,
        request: GenerationRequest,
        limits: Limits,
        seed: int,
        decoder: Decoder,
        matcher: Matcher | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> None:
        self.features = features or {}
        self.prompt: Sequence[int] = tuple(request.token_ids)
        self.sampling = request.sampling
        self.seed = seed
        self.limits = limits
        self.generated: list[int] = []
        self.adapter = request.adapter
        self.sampler = RowSampler(
            request.sampling, seed, self.prompt, matcher, limits.stop_token_ids
        )
        self.cached_tokens = 0
        self.cancelled = False
        self.finished = False
        self.alone = False
        self._text = TextStream(decoder, skip_special_tokens=request.sampling.skip_special_tokens)
        self._stop = StopStrings(request.sampling.stop)
        self._reported = 0
        self._logprobs: list[TokenLogprob] = []
        self.loop = asyncio.get_running_loop()
        self._arrivals: asyncio.Queue[Delivery] = asyncio.Queue()

    @property
    def tokens(self) -> list[int]:
        """All tokens so far: the prompt and what was generated."""
        return [*self.prompt, *self.generated]

    async def receive(self) -> GenerationEvent:
        """Wait for the next event.

        Raises:
            FtError: the request failed.
        """
        item = await self._arrivals.get()
        if isinstance(item, FtError):
            raise item
        return item

    def arrive(self, item: Delivery) -> None:
        """Take an event or the failure; called in the caller's loop."""
        self._arrivals.put_nowait(item)

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> GenerationEvent | None:
        """Add a chosen token and return the event it causes, if any."""
        self.generated.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        self.sampler.note(token)
        if token in self.limits.stop_token_ids:
            named = token if token in self.sampling.stop_token_ids else None
            return self._end("stop", self._stop.push(self._text.finish()), named)
        if len(self.generated) <= self.sampling.min_tokens:
            text = self._text.push(token)
        else:
            text = self._stop.push(self._text.push(token))
        if self._stop.found:
            return self._end("stop", text)
        if self.sampler.complete:
            return self._end("stop", text + self._stop.push(self._text.finish()))
        if len(self.generated) >= self.limits.max_new_tokens:
            return self._end("length", text + self._stop.push(self._text.finish()))
        return self._event(text) if text else None

    def stop(self) -> GenerationEvent:
        """End the answer where it is."""
        return self._end(
            "aborted" if self.cancelled else "stop", self._stop.push(self._text.finish())
        )

    def _end(
        self, reason: FinishReason, text: str, ended_by: int | str | None = None
    ) -> GenerationEvent:
        self.finished = True
        if self._stop.found:
            reason, ended_by = "stop", self._stop.found
        else:
            text += self._stop.finish()
        return self._event(text, reason, ended_by)

    def _event(
        self,
        text: str,
        reason: FinishReason | None = None,
        ended_by: int | str | None = None,
    ) -> GenerationEvent:
        news, self._reported = tuple(self.generated[self._reported :]), len(self.generated)
        logprobs, self._logprobs = tuple(self._logprobs), []
        return GenerationEvent(
            text,
            news,
            reason,
            len(self.prompt),
            len(self.generated),
            self.cached_tokens,
            logprobs,
            ended_by,
        )
