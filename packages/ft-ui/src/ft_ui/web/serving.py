"""Serving a page until Ctrl-C."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ft_core.errors import DependencyError, FtError, UsageError
from ft_ui.web.access import Password, allowed_hosts
from ft_ui.web.guard import Guard
from ft_ui.web.uploads import LARGEST_FILE, upload_folder

if TYPE_CHECKING:
    import gradio as gr

Say = Callable[[str], None]

FIRST_PORT = 7860
PORTS_TRIED = 100

_NO_SHARING = 'button[aria-label="Share"] { display: none; }'
"""Gradio's button beside pictures would send them to another host, which the guard refuses."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a page is served.

    Attributes:
        host: the address.
        port: its port.
        listening: the socket, which is open before anything slow begins.
    """

    host: str
    port: int
    listening: socket.socket

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host
        return f"http://{shown}:{self.port}"


_NAMES = """<script>
{ let waiting = false;
  const name = () => {
    waiting = false;
    for (const part of document.querySelectorAll("label textarea:not([aria-label])")) {
      const said = part.closest("label").querySelector("[data-testid=block-info]")?.innerText.trim();
      if (said) part.setAttribute("aria-label", said);
    }
    for (const image of document.querySelectorAll("img[alt=''][src*='/file=']")) {
      image.alt = decodeURIComponent(image.src.split("/").pop());
    }
  };
  new MutationObserver(() => {
    if (!waiting) { waiting = true; requestAnimationFrame(name); }
  }).observe(document, { childList: true, subtree: true });
}
</script>"""
"""What Gradio leaves without a name: fields whose label has a copy button in it, and pictures in a conversation."""


def take_address(host: str, port: int | None) -> Address:
    """Open the socket; without a port, that of the first free one from 7860 on.

    Raises:
        UsageError: the port is taken, or the host isn't one of this machine.
    """
    ports = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else (port,)
    for candidate in ports:
        try:
            listening = _listen(host, candidate)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            reason = error.strerror or str(error)
            raise UsageError(
                f"--host {host} --port {candidate}: {reason}; give another --port, or stop what uses it"
            ) from error
        return Address(host, listening.getsockname()[1], listening)
    raise UsageError(f"--port: {ports[0]} to {ports[-1]} are all taken; give one that is free")


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def import_gradio() -> Any:
    """Import Gradio, with nothing that would call home, and a folder of its own for uploads.

    Raises:
        DependencyError: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    upload_folder()
    try:
        import gradio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise DependencyError("the page", "Gradio", "pip install 'ft-ui[gradio]'") from error
    return gradio


def serve(
    page: gr.Blocks,
    address: Address,
    *,
    password: Password | None = None,
    share: bool = False,
    css: str = "",
    head: str = "",
    say: Say,
    on_stop: Callable[[], None] | None = None,
) -> None:
    """Serve a page until it is interrupted.

    Args:
        page: the page.
        address: where.
        password: who may see it.
        share: also give it an address on the internet, by Gradio's tunnel.
        css: added to the page's styles.
        head: added to its head.
        say: is told the address.
        on_stop: called once when serving ends.

    Raises:
        FtError: there is no tunnel to be had.
    """
    import uvicorn

    guard = guarded(page, address, password=password, css=css, head=head)
    config = uvicorn.Config(
        guard, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="on"
    )
    if share:
        url = open_tunnel(address)
        guard.also_allow(url.split("//", 1)[-1].strip("/"))
        say(f"public     {url}")
    say(f"open       {address.url}    (Ctrl-C ends it)")
    try:
        uvicorn.Server(config).run(sockets=[address.listening])
    finally:
        if on_stop is not None:
            on_stop()


def guarded(
    page: gr.Blocks,
    address: Address,
    *,
    password: Password | None = None,
    css: str = "",
    head: str = "",
) -> Guard:
    """Return the application that ``serve`` runs."""
    gradio = import_gradio()
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok")

    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=address.host,
        server_port=address.port,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=f"{_NO_SHARING}\n{css}",
        head=f"{_NAMES}\n{head}",
    )
    # Without this, which Gradio's own launch sets, it copies any file that a request names to its uploads.
    page.has_launched = True
    return Guard(app, allowed_hosts(address.host), password, uploads=upload_folder())


def open_tunnel(address: Address) -> str:
    """Return the internet address of a tunnel to the page.

    Raises:
        FtError: Gradio's tunnel server can't be reached.
    """
    import secrets

    from gradio.networking import setup_tunnel

    try:
        return str(setup_tunnel("127.0.0.1", address.port, secrets.token_urlsafe(32), None, None))
    except Exception as error:
        raise FtError(
            f"--share: there is no tunnel to be had ({error}); leave it out, or forward the port with ssh -L"
        ) from error
