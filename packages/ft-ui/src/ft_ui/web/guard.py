"""What stands before every request to a page: it answers only who may ask, and only what a page needs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ft_ui.web.access import Password, host_name, is_address
from ft_ui.web.uploads import names_other_files

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NEEDED = re.compile(
    r"/(?:"
    r"|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(?:/\d+)?"
    r"|(?:assets|static|svelte)/[^?]*"
    r"|gradio_api/(?:info/?|app_id/?|startup-events|cancel|reset/?|upload|upload_progress"
    r"|queue/(?:join|data)|heartbeat/[\w-]+|file=[^?]*)"
    r"|health"
    r")"
)
"""The routes a page uses. Gradio has more (proxy, code editing, monitoring, run history, an open API)."""

HEADERS = {
    # Gradio's page has inline scripts and styles; nothing comes from or goes to another host.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_SAFE = ("GET", "HEAD", "OPTIONS")

_EVENT = "/gradio_api/queue/join"
"""Where a page sends what is in its fields."""


@dataclass(slots=True)
class Guard:
    """An ASGI application before another one.

    Attributes:
        app: the page.
        hosts: names a browser may call the server by; addresses in numbers are allowed too.
        password: who may see the page; ``None`` is everyone who reaches it.
        largest: bytes a request may send.
        uploads: the folder whose files a request may name; without one it may name none.
    """

    app: App
    hosts: frozenset[str]
    password: Password | None = None
    largest: int = 64 * 1024 * 1024
    uploads: Path | None = None
    _more: set[str] = field(default_factory=set)

    def also_allow(self, host: str) -> None:
        """Allow another name, such as that of a tunnel."""
        self._more.add(host.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        receive = self._bounded(receive)
        if scope["path"] == _EVENT:
            body = await _whole(receive)
            if body is None:
                return
            if names_other_files(body, self.uploads):
                await _refuse(send, 403, "only files that were uploaded here can be used")
                return
            receive = _again(body, receive)
        await self.app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        name = host_name(host)
        if name not in self.hosts and name not in self._more and not is_address(name):
            return 421, f"this server isn't called {name or 'that'}; use its address, or --host"
        if _from_elsewhere(headers, host) and (
            scope["method"] not in _SAFE or scope["path"] not in ("", "/")
        ):
            return 403, "requests from other sites are refused"
        if self.password is not None and not self.password.matches(
            headers.get("authorization", "")
        ):
            return 401, "sign in with the user and password that the terminal shows"
        if NEEDED.fullmatch(scope["path"] or "/") is None or ".." in scope["path"].split("/"):
            return 404, "there is nothing here"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.largest:
            return 413, f"at most {self.largest // 2**20} MiB can be sent"
        return None

    def _bounded(self, receive: Receive) -> Receive:
        left = self.largest

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return {"type": "http.disconnect"} if left < 0 else message

        return counted


def _from_elsewhere(headers: MutableMapping[str, str], host: str) -> bool:
    """Whether a browser says that another site's page sent the request."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    return headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-") and name.lower() != b"server"
            ]
            kept += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": kept}
        await send(message)

    return sending


async def _whole(receive: Receive) -> bytes | None:
    """Return the body of a request; ``None`` if it breaks off."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that has been read, then what comes after it."""
    left = [body]

    async def receiving() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return receiving


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    headers += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="ft", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
