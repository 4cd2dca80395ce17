"""Stopping a run politely: SIGTERM and Ctrl-C end it after the current step, with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, remembers a SIGTERM or Ctrl-C instead of dying of it; a second one is obeyed at once.

    Attributes:
        received: the signal, or ``None``.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python delivers signals to the main thread only; elsewhere the caller stops the run itself.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        name = "Ctrl-C" if number == signal.SIGINT else self.received.name
        print(
            f"\n{name}: saving a checkpoint after this step, then stopping (again to stop at once)",
            file=sys.stderr,
            flush=True,
        )


def ignore_interrupts(worker: int) -> None:
    """Let a loader process live through signals that reach the whole process group, until the checkpoint is saved."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
