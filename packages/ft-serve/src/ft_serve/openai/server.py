"""Running the application: listening before the model is there, and stopping without losing answers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import queue
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ft_core.errors import ModelError, UsageError
from ft_core.prepare import Say
from ft_serve.openai.front import Front
from ft_serve.openai.served import Served

MOST_HEADER_BYTES = 32 * 1024
IDLE_SECONDS = 30
"""A connection without a request is closed after this."""

CLOSING_SECONDS = 5

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: name or address.
        port: 0 takes a free one.
        keyfile, certfile: for HTTPS.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keyfile: str | None = None
    certfile: str | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[str]:
        """Host names by which it is asked on this machine."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset({"localhost", "127.0.0.1", "[::1]", own.lower()})

    def listen(self) -> socket.socket:
        """Take the address.

        Raises:
            UsageError: it is taken or isn't this machine's, or key and certificate don't fit.
        """
        if self.keyfile is not None and self.certfile is not None:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certfile, self.keyfile)
            except (OSError, ssl.SSLError) as error:
                raise UsageError(
                    f"--ssl_certfile {self.certfile} with --ssl_keyfile {self.keyfile}: {error}"
                ) from error
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=2048)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == 98:  # EADDRINUSE
                reason = (
                    f"the port is in use{_user_of(self.port)}; stop that, or give another --port"
                )
            raise UsageError(f"--host {self.host} --port {self.port}: {reason}") from error

    def url(self, listening: socket.socket) -> str:
        """Return where clients find it."""
        scheme = "http" if self.keyfile is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{listening.getsockname()[1]}/v1"


def _user_of(port: int) -> str:
    """Return `` by process 7 (python)`` where that can be known."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                if connection.pid is None:
                    return ""
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""
    return ""


class _Protocol(H11Protocol):
    """Closes connections that bring no request, which uvicorn does only after their first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


class Stopped(BaseException):
    """A signal came while the model was loading."""


class Server:
    """Serves in a thread of its own, so that the main thread can load the model and hear signals.

    Args:
        app: the application.
        front: its state.
        address: where it listens.
        listening: the socket, taken already.
        say: is told what a person should know.
    """

    def __init__(
        self, app: ASGIApp, front: Front, address: Address, listening: socket.socket, say: Say
    ) -> None:
        self._front = front
        self._listening = listening
        self._say = say
        self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=CLOSING_SECONDS,
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                ssl_keyfile=address.keyfile,
                ssl_certfile=address.certfile,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="ft-http", daemon=True)

    def run(
        self, load: Callable[[], Served], ready: Callable[[Served], None], *, log_interval: int
    ) -> None:
        """Serve until a signal comes; SIGTERM and Ctrl-C let answers under way finish, a second one doesn't.

        Args:
            load: loads the model, in the main thread.
            ready: is called once it answers.
            log_interval: seconds between lines about what goes on; -1 writes none.

        Raises:
            ModelError: the server's thread ended by itself.
        """
        self.start()
        before = {number: signal.signal(number, _stop_loading) for number in STOPPING}
        try:
            served = load()
            for number in STOPPING:
                signal.signal(number, self._on_signal)
            self._front.serve(served)
            ready(served)
            self._wait(log_interval)
            self.drain()
        except Stopped:
            self._say("stopped before the model was loaded")
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._failure is not None:
            raise ModelError(f"the server ended: {self._failure}") from self._failure

    def start(self) -> None:
        """Begin to take requests; they are told to wait until the front has a model."""
        self._thread.start()

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._listening])

        try:
            asyncio.run(serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._signals.put(None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)

    def _wait(self, log_interval: int) -> None:
        told = time.monotonic(), self._front.metrics.tokens_so_far
        while True:
            try:
                self._signals.get(timeout=None if log_interval < 0 else log_interval)
            except queue.Empty:
                told = self._tell(*told)
            else:
                return

    def _tell(self, since: float, before: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        now, tokens = time.monotonic(), self._front.metrics.tokens_so_far
        answering = self._front.answering
        if tokens != before or answering.running or answering.waiting:
            prompt, generated = (
                (new - old) / (now - since) for new, old in zip(tokens, before, strict=True)
            )
            self._say(
                f"running {answering.running}, waiting {answering.waiting}; "
                f"prompts {prompt:.1f} tokens/s, answers {generated:.1f} tokens/s"
            )
        return now, tokens

    def drain(self) -> None:
        """Take no more requests and wait for those under way, at most as long as the limits say."""
        if self._loop is None or not self._thread.is_alive():
            return
        self._say(f"stopping; {self._front.in_flight} requests are under way")
        draining = asyncio.run_coroutine_threadsafe(self._front.drain(), self._loop)
        while not draining.done():
            try:
                self._signals.get(timeout=0.05)
            except queue.Empty:
                continue
            self._say("stopping at once")
            self._server.force_exit = True
            draining.cancel()
            return

    def stop(self) -> None:
        """Let go of the model, in the loop that it answered in, and end the thread."""
        if self._loop is not None and self._thread.is_alive():
            closing = asyncio.run_coroutine_threadsafe(self._front.close(), self._loop)
            try:
                closing.result(timeout=30)
            except TimeoutError:
                self._say("the engine doesn't stop; leaving it")
        self._server.should_exit = True
        self._thread.join(timeout=CLOSING_SECONDS + 5)
        self._listening.close()


def _stop_loading(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


def log_to_stderr() -> None:
    """Write the server's log where a service manager finds it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("ft_serve", "uvicorn.error"):
        log = logging.getLogger(name)
        log.handlers[:] = [handler]
        log.setLevel(logging.INFO if name == "ft_serve" else logging.WARNING)
        log.propagate = False
