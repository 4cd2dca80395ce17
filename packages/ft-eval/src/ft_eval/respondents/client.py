"""Requests to a server that is slow, busy or gone: repeated where that helps, explained where it doesn't."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ft_core.errors import ModelError, UsageError

TRIES = 6
LONGEST_PAUSE = 60.0
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which asking again may help."""

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Flags:
    """Names of the flags that say which server is meant, for messages."""

    url: str = "eval_url"
    model: str = "model_type"
    token: str = "eval_token"


@dataclass(slots=True)
class Client:
    """A connection to one server.

    Attributes:
        url: its base URL, usually ending with /v1.
        token: sent as a bearer token; never shown.
        timeout: seconds for one answer.
        flags: names of flags for messages.
        pause: waits between tries; tests don't.
        say: is told once when the server asks for patience.
    """

    url: str
    token: str | None = None
    timeout: float = 120
    flags: Flags = field(default_factory=Flags)
    pause: Pause = asyncio.sleep
    say: Callable[[str], None] | None = None
    _http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        self.url = self.url.rstrip("/")
        self._http = httpx.AsyncClient(
            headers=headers, timeout=httpx.Timeout(self.timeout, connect=10)
        )

    @property
    def root(self) -> str:
        """The URL without /v1, where servers have what is not OpenAI's."""
        return self.url.removesuffix("/v1")

    async def get(self, url: str) -> Any:
        """Return the JSON of a GET."""
        return await self._send("GET", url, None)

    async def post(self, url: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON of a POST.

        Raises:
            UsageError: the server refuses this request or the token; others may still be answered.
            ModelError: it doesn't answer, or not in OpenAI's protocol.
        """
        return await self._send("POST", url, body)

    async def try_post(self, url: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON of a POST, or ``None`` where the server has no such thing."""
        try:
            response = await self._http.post(url, json=dict(body))
        except httpx.HTTPError:
            return None
        return _json(response) if response.status_code == 200 else None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        reason = ""
        for attempt in range(TRIES):
            wait = 0.5 * 2**attempt * random.uniform(0.75, 1.25)
            try:
                response = await self._http.request(method, url, json=body)
            except httpx.TimeoutException:
                reason = f"no answer within {self.timeout:g} s (--eval_timeout)"
            except httpx.ConnectError as error:
                reason = f"no server can be reached there ({error})"
            except (httpx.TransportError, httpx.InvalidURL) as error:
                reason = f"the connection broke ({type(error).__name__}: {error})"
            else:
                if response.status_code not in BUSY:
                    return self._read(response, url)
                reason = f"the server answers {response.status_code}: {_message(response)}"
                wait = _retry_after(response, wait)
            if self.say is not None and attempt == 0:
                self.say(f"--{self.flags.url} {self.url}: {reason}; asking again")
            if attempt + 1 < TRIES:
                await self.pause(min(wait, LONGEST_PAUSE))
        raise ModelError(
            f"--{self.flags.url} {self.url}: {reason}, {TRIES} times; look at the server and run the same command "
            "again, which goes on where this one stopped"
        )

    def _read(self, response: httpx.Response, url: str) -> Any:
        status = response.status_code
        if status in (401, 403):
            raise ModelError(
                f"--{self.flags.url} {self.url}: the server refuses the token ({status}); give the right one with "
                f"FT_{self.flags.token.upper()} or --{self.flags.token}"
            )
        if status in (404, 405):
            raise ModelError(
                f"--{self.flags.url} {self.url}: the server has no {url} ({status}: {_message(response)}); the base URL "
                "usually ends with /v1"
            )
        if status >= 400:
            raise UsageError(f"the server refuses the request ({status}): {_message(response)}")
        data = _json(response)
        if data is None:
            raise ModelError(
                f"--{self.flags.url} {self.url}: {url} answers something that is no JSON: {response.text[:80]!r}; is it "
                "an OpenAI-compatible server?"
            )
        return data


def _json(response: httpx.Response) -> Any:
    try:
        data = response.json()
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _message(response: httpx.Response) -> str:
    data = _json(response) or {}
    error = data.get("error", data.get("message", data.get("detail")))
    if isinstance(error, Mapping):
        error = error.get("message")
    return str(error or response.text.strip()[:200] or response.reason_phrase)


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        return otherwise
