"""Clients that ask a server at the same time, and what each of them saw."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ft_core.errors import FtError

FIRST_TOKEN = 1000
TOKENS = 5000
"""Prompts are made of ids from ``FIRST_TOKEN``: below stand special tokens, and small vocabularies end above."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server that is measured.

    Attributes:
        url: up to and including ``/v1``.
        model: as it calls the model; ``None`` takes the first of its list.
        key: of the server.
    """

    url: str
    model: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of one answer; times in seconds since it was asked for.

    Attributes:
        events: when each piece came.
        tokens: of the answer, as the server counts them.
        error: why there was none.
    """

    events: tuple[float, ...] = ()
    tokens: int = 0
    error: str | None = None

    @property
    def first(self) -> float:
        """Time to the first token."""
        return self.events[0]

    @property
    def whole(self) -> float:
        """Time to the last token."""
        return self.events[-1]

    @property
    def per_token(self) -> float:
        """Mean time of the tokens after the first."""
        return (self.whole - self.first) / max(self.tokens - 1, 1)


@dataclass(frozen=True, slots=True)
class Round:
    """All answers of one round, and how long they took together."""

    clients: int
    seconds: float
    seen: Sequence[Seen]

    @property
    def good(self) -> list[Seen]:
        """The answers that came."""
        return [item for item in self.seen if item.error is None]

    @property
    def speed(self) -> float:
        """Tokens of answers per second."""
        return sum(item.tokens for item in self.good) / self.seconds


def random_prompts(
    count: int, tokens: int, *, seed: int, vocabulary: int = FIRST_TOKEN + TOKENS
) -> list[list[int]]:
    """Return prompts of random token ids; a server can't have any of them in a cache.

    Args:
        count: how many.
        tokens: of each.
        seed: of the ids.
        vocabulary: ids are below this.
    """
    source = random.Random(seed)
    lowest = min(FIRST_TOKEN, vocabulary // 2)
    return [[source.randrange(lowest, vocabulary) for _ in range(tokens)] for _ in range(count)]


async def find_model(http: httpx.AsyncClient, target: Target) -> str:
    """Return what the server calls its model.

    Raises:
        FtError: it can't be reached, or lists none.
    """
    if target.model is not None:
        return target.model
    try:
        answer = await http.get("/models")
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise FtError(f"--url {target.url}: the server lists no models: {error}") from error


async def measure(
    target: Target,
    prompts: Sequence[Sequence[int]],
    *,
    clients: int,
    new_tokens: int,
    timeout: float = 600.0,
    done: Callable[[], None] = lambda: None,
) -> Round:
    """Ask for a continuation of every prompt, each client one after another.

    Args:
        target: the server.
        prompts: token ids; they are divided among the clients as these become free.
        clients: how many ask at the same time.
        new_tokens: of every answer, whatever would end it earlier.
        timeout: seconds for one answer.
        done: is called after each answer.

    Raises:
        FtError: the server can't be reached.
    """
    headers = {} if target.key is None else {"authorization": f"Bearer {target.key}"}
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(
        base_url=target.url, headers=headers, timeout=timeout, limits=limits
    ) as http:
        model = await find_model(http, target)
        waiting = iter(enumerate(prompts))
        seen: list[Seen] = [Seen()] * len(prompts)

        async def client() -> None:
            for index, prompt in waiting:
                seen[index] = await _ask(http, model, prompt, new_tokens)
                done()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return Round(clients, time.perf_counter() - began, seen)


async def _ask(http: httpx.AsyncClient, model: str, prompt: Sequence[int], new_tokens: int) -> Seen:
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": new_tokens,
        "min_tokens": new_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.perf_counter()
    events: list[float] = []
    tokens = 0
    try:
        async with http.stream("POST", "/completions", json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode("utf-8", "replace")[:200]
                return Seen(error=f"{answer.status_code} {text}")
            async for event in _events(answer):
                if event.get("error"):
                    return Seen(error=str(event["error"])[:200])
                if event.get("choices"):
                    events.append(time.perf_counter() - began)
                if event.get("usage"):
                    tokens = int(event["usage"]["completion_tokens"])
    except (httpx.HTTPError, ValueError) as error:
        return Seen(error=f"{type(error).__name__}: {error}")
    return Seen(tuple(events), tokens) if events else Seen(error="the answer was empty")


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])
