"""A server as a child process: waited for, watched, started again after a crash, ended with its owner."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import httpx

from ft_core.errors import ModelError
from ft_serve.engines.child import keeper

logger = logging.getLogger(__name__)

LAST_LINES = 20
"""Of the log, shown where a server doesn't start."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started and looked after. Times are in seconds.

    Attributes:
        name: for messages: ``vLLM``.
        command: gives the words for a port.
        log: file its output is appended to; its folder becomes the working directory.
        environment: variables set beside those of this process.
        health: path that answers 200 once the server is ready.
        start_within: time from the start to being ready.
        poll: time between two looks at a server that starts.
        check_every: time between two looks at a server that runs.
        patience: looks in a row without an answer that make it count as dead.
        back_off: pause before the first new start; each further one waits twice as long, at most a minute.
        most_restarts: new starts in a row without having been ready; then it is given up.
        grace: time for ending by itself.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    start_within: float = 1800.0
    poll: float = 0.2
    check_every: float = 5.0
    patience: int = 6
    back_off: float = 1.0
    most_restarts: int = 5
    grace: float = 15.0


class State(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    DEAD = "dead"
    CLOSED = "closed"


class ChildServer:
    """Keeps one server running until ``close``.

    A server that doesn't become ready the first time is given up at once: the reason is in its flags or
    the machine. One that was ready and ended is started again.

    Args:
        launch: how.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.url = ""
        self.starts = 0
        self._state = State.STARTING
        self._reason = ""
        self._changed = threading.Condition()
        self._closing = False
        self._client = httpx.Client(trust_env=False)
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        # Bound to no thread that may end earlier: on Linux a child is told of the end of the thread.
        self._thread = threading.Thread(
            target=self._main, name=f"ft-{launch.name}-keeper", daemon=True
        )
        self._thread.start()

    @property
    def state(self) -> State:
        """Where it is now."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is down or dead; empty otherwise."""
        return self._reason

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until the server answers.

        Raises:
            ModelError: it ended instead, or doesn't get there in time; the message has the end of its log.
        """
        with self._changed:
            settled = (State.READY, State.DEAD, State.CLOSED)
            self._changed.wait_for(lambda: self._state in settled, timeout)
            if self._state is State.READY:
                return
        raise ModelError(self._reason or f"{self.launch.name} is {self._state}")

    def wait_started(self, times: int, timeout: float | None = None) -> None:
        """Wait until the server was started so many times, or is given up."""
        with self._changed:
            ended = (State.DEAD, State.CLOSED)
            self._changed.wait_for(lambda: self.starts >= times or self._state in ended, timeout)

    def close(self) -> None:
        """End the server and wait until it is gone."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._client.close()

    def _main(self) -> None:
        failures, was_ready = 0, False
        while not self._closing:
            if failures:
                self._pause(min(60.0, self.launch.back_off * 2 ** (failures - 1)))
                if self._closing:
                    break
            self.starts += 1
            self._set(State.STARTING)
            process = self._start()
            try:
                reason = self._wait_for_health(process)
                if reason is None:
                    failures, was_ready = 0, True
                    self._set(State.READY)
                    reason = self._watch(process)
            finally:
                self._end(process)
            if self._closing:
                break
            failures += 1
            reason = f"{self.launch.name} {reason}"
            if not was_ready or failures > self.launch.most_restarts:
                self._set(State.DEAD, f"{reason}; its log is {self.launch.log}{self._last_lines()}")
                return
            logger.error("%s; it is started again; its log is %s", reason, self.launch.log)
            self._set(State.DOWN, f"{reason} and is started again")
        self._set(State.CLOSED, "the engine was closed")

    def _set(self, state: State, reason: str = "") -> None:
        with self._changed:
            self._state, self._reason = state, reason
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _start(self) -> subprocess.Popen[bytes]:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        words = [str(word) for word in self.launch.command(port)]
        with self.launch.log.open("ab") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, str(self.launch.grace), *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.launch.environment},
                cwd=self.launch.log.parent,
                start_new_session=True,
            )
        threading.Thread(target=self._tell_end, args=(process,), daemon=True).start()
        return process

    def _wait_for_health(self, process: subprocess.Popen[bytes]) -> str | None:
        """Return ``None`` once the server answers, else why it won't."""
        looks = int(self.launch.start_within / self.launch.poll)
        for _ in range(looks):
            if self._healthy(self.launch.poll):
                return None
            if (ended := self._ended(process, self.launch.poll)) is not None:
                return ended
        return f"was not ready within {self.launch.start_within:.0f} seconds"

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Return what went wrong, once something has."""
        silent = 0
        while silent < self.launch.patience:
            if (ended := self._ended(process, self.launch.check_every)) is not None:
                return ended
            silent = 0 if self._healthy(self.launch.check_every) else silent + 1
        return f"did not answer {self.launch.patience} times in a row"

    def _ended(self, process: subprocess.Popen[bytes], seconds: float) -> str | None:
        """Wait a while; return how the process ended, "" where this one is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or process.returncode is not None, seconds)
            if self._closing:
                return ""
            code = process.returncode
            return None if code is None else f"ended with exit code {code}"

    def _tell_end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._changed:
            self._changed.notify_all()

    def _healthy(self, timeout: float) -> bool:
        try:
            answer = self._client.get(self.url + self.launch.health, timeout=max(1.0, timeout))
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Close the pipe, at which the keeper ends the server, and wait."""
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        process.wait()

    def _last_lines(self) -> str:
        lines = self.launch.log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = [line for line in lines if line.strip()][-LAST_LINES:]
        return "".join(f"\n  {line[:300]}" for line in shown)


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
