"""HTTP to one server: JSON there, JSON or a stream of events back, errors in words."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpx

from ft_core.errors import FtError, ModelError, UsageError
from ft_serve.engines.remote.dialect import Json

CONNECT_WITHIN = 10.0
"""Seconds for reaching the server; an answer itself may take as long as it takes."""

REFUSED = frozenset({400, 404, 413, 422})
END = "[DONE]"


@dataclass(slots=True)
class _Shared:
    client: httpx.AsyncClient
    users: int = 0


class Connection:
    """Requests to one server, from any event loop.

    Each loop has a client of its own while requests of it are under way, so nothing outlives a loop.

    Args:
        name: of the server, for messages.
        key: sent as a bearer token.
    """

    def __init__(self, name: str, key: str | None = None) -> None:
        self._name = name
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._trust = ssl.create_default_context()
        self._shared: dict[asyncio.AbstractEventLoop, _Shared] = {}

    async def get(self, url: str) -> Json:
        """Return the JSON at an address.

        Raises:
            FtError: the server refuses or isn't there.
        """
        async with self._client() as client, self._errors(url):
            return self._json(await client.get(url))

    async def post(self, url: str, body: Json) -> Json:
        """Send JSON and return the JSON that comes back.

        Raises:
            FtError: the server refuses, fails or isn't there.
        """
        async with self._client() as client, self._errors(url):
            return self._json(await client.post(url, json=body))

    async def stream(self, url: str, body: Json) -> AsyncGenerator[Json, None]:
        """Send JSON and give the events that come back; closing early ends the request.

        Raises:
            FtError: the server refuses, fails, ends the stream too early, or isn't there.
        """
        async with (
            self._client() as client,
            self._errors(url),
            client.stream("POST", url, json=body) as answer,
        ):
            if answer.is_error:
                await answer.aread()
                raise self._failure(answer)
            async for text in _events(answer):
                if text == END:
                    return
                data = json.loads(text)
                if "error" in data:
                    raise self._failed(_code(data["error"]), _message(data))
                yield data
        raise ModelError(f"{self._name} ended the answer in the middle")

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        loop = asyncio.get_running_loop()
        shared = self._shared.get(loop)
        if shared is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
            timeout = httpx.Timeout(None, connect=CONNECT_WITHIN)
            shared = self._shared[loop] = _Shared(
                httpx.AsyncClient(
                    headers=self._headers, limits=limits, timeout=timeout, verify=self._trust
                )
            )
        shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[loop]
                await shared.client.aclose()

    @asynccontextmanager
    async def _errors(self, url: str) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise ModelError(
                f"{self._name} at {url} doesn't answer ({type(error).__name__}: {error})"
            ) from error
        except json.JSONDecodeError as error:
            raise ModelError(f"{self._name} at {url} sent what is no JSON: {error}") from error

    def _json(self, answer: httpx.Response) -> Json:
        if answer.is_error:
            raise self._failure(answer)
        return cast(Json, answer.json())

    def _failure(self, answer: httpx.Response) -> FtError:
        try:
            said = _message(answer.json())
        except ValueError:
            said = answer.text[:300]
        return self._failed(answer.status_code, said)

    def _failed(self, status: int, said: str) -> FtError:
        if status == httpx.codes.UNAUTHORIZED:
            return UsageError(
                f"{self._name} wants another key than FT_ENGINE_KEY has: {said or status}"
            )
        if status in REFUSED:
            return UsageError(f"{self._name} refuses the request ({status}): {said}")
        return ModelError(f"{self._name} failed on this request ({status}): {said}")


async def _events(answer: httpx.Response) -> AsyncIterator[str]:
    """Give the data of server-sent events."""
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            yield line[5:].strip()


def _message(data: object) -> str:
    """Find what a server says of an error, in whichever form it does."""
    while isinstance(data, dict):
        data = next((data[name] for name in ("error", "message", "detail") if name in data), "")
    return str(data)


def _code(error: object) -> int:
    """Return the status that an error in the middle of a stream would have had before it."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else httpx.codes.INTERNAL_SERVER_ERROR
