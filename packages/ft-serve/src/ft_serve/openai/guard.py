"""The first to see a request: who asks, by which name, how much is sent, and what is told of failures.

Everything is refused that isn't let in here, so a route can't be forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ft_serve.openai.errors import ApiError, overloaded
from ft_serve.openai.front import Front
from ft_serve.openai.keys import Keys

HEALTH = frozenset({"/health", "/health/live", "/health/ready"})
"""What may be asked without a key, also while the server stops."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}\Z")
_LONGEST_SHOWN = 2000

logger = logging.getLogger("ft_serve.requests")


@dataclass(frozen=True, slots=True)
class Access:
    """Who gets in.

    Attributes:
        keys: ``None`` lets everybody in.
        hosts: names by which the server may be asked, without ports; ``None`` takes any. It keeps pages of
            other sites from reaching a server on this machine under a name of theirs (DNS rebinding).
        verbose: log what requests say.
    """

    keys: Keys | None = None
    hosts: Collection[str] | None = None
    verbose: bool = False


class Guard:
    """Pure ASGI, since Starlette's own base for middleware hides that a client has left.

    Args:
        app: what answers those who get in.
        front: its state.
        access: who gets in.
    """

    def __init__(self, app: ASGIApp, front: Front, access: Access) -> None:
        self.app = app
        self._front = front
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            raise RuntimeError(f"a connection of type {scope['type']} isn't served")
        exchange = _Exchange(scope, receive, send, self._front.limits.body)
        counts = scope["path"] not in HEALTH
        self._front.in_flight += counts
        try:
            await self._answer(scope, exchange)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.error("request %s failed", exchange.request_id, exc_info=error)
            await exchange.refuse(_failed(exchange.request_id), scope)
        finally:
            self._front.in_flight -= counts
            self._record(scope, exchange)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            self._check(scope, exchange.headers)
            exchange.begin_body(self._front.limits.body_seconds)
        except ApiError as refusal:
            await exchange.refuse(refusal, scope)
            return
        await self.app(scope, exchange.receive, exchange.send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        self._check_host(headers)
        if scope["path"] in HEALTH:
            return
        self._check_key(headers)
        if self._front.state == "draining":
            raise overloaded("the server is stopping", code="draining")
        if scope["method"] == "POST":
            _check_body(headers, self._front.limits.body)

    def _check_host(self, headers: Headers) -> None:
        hosts = self._access.hosts
        if hosts is None:
            return
        given = headers.getlist("host")
        name = re.sub(r":\d+\Z", "", given[0]).lower() if len(given) == 1 else ""
        if name not in hosts:
            raise ApiError(
                403,
                "this server isn't asked by that Host name; --allowed_hosts adds names",
                code="host_not_allowed",
            )

    def _check_key(self, headers: Headers) -> None:
        keys = self._access.keys
        if keys is None:
            return
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = headers.get("x-api-key", "")
        if not keys.accept(shown.strip().encode()):
            raise ApiError(
                401,
                "the key is missing or wrong; send Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Bearer realm="ft"'},
            )

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "unmatched")
        status = exchange.status or 499
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._front.metrics.http.labels(path, method, str(status)).inc()
        if scope["path"] in HEALTH or path == "/metrics":
            return
        took = time.perf_counter() - exchange.began
        logger.info("%s %s %s %d %.3fs", exchange.request_id, method, path, status, took)
        if self._access.verbose and exchange.body:
            text = exchange.body.decode("utf-8", "replace")
            more = "…" if exchange.received > len(exchange.body) else ""
            logger.info("%s asked %r%s", exchange.request_id, text, more)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _check_body(headers: Headers, most: int) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Pages of other sites can send anything but this kind without asking first.
        raise ApiError(415, "send the body as Content-Type: application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "send the body without Content-Encoding")
    length = headers.get("content-length")
    if length is not None and (not length.isdigit() or int(length) > most):
        raise _too_large(most)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body has more than {most:,} bytes, which is all this server takes")


def _failed(request_id: str) -> ApiError:
    return ApiError(
        500, f"the server failed; its log says more about request {request_id}", code="server_error"
    )


class _Exchange:
    """One request and its answer, counted and timed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        self.began = time.perf_counter()
        self.status: int | None = None
        self.body = b""
        self.received = 0
        self._receive = receive
        self._send = send
        self._most = most
        self._body_until: float | None = None

    def begin_body(self, seconds: float) -> None:
        """From now on the body has this long to arrive."""
        self._body_until = asyncio.get_running_loop().time() + seconds

    async def receive(self) -> Message:
        """Return the next message, counting what it brings.

        Raises:
            ApiError: it is too much, or takes too long.
        """
        try:
            async with asyncio.timeout_at(self._body_until):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "the body took too long to arrive") from None
        if message["type"] == "http.request":
            part = message.get("body", b"")
            self.received += len(part)
            if self.received > self._most:
                raise _too_large(self._most)
            self.body += part[: max(0, _LONGEST_SHOWN - len(self.body))]
            if not message.get("more_body", False):
                self._body_until = None
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, with the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers["x-content-type-options"] = "nosniff"
        await self._send(message)

    async def refuse(self, error: ApiError, scope: Scope) -> None:
        """Answer with an error, unless an answer was begun."""
        if self.status is None:
            await error.response()(scope, self.receive, self.send)
