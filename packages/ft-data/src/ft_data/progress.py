"""How far encoding is: on one line in a terminal, a line every now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

INTERVAL = 10.0
"""Seconds between two lines of a log."""


class EncodingProgress:
    """Is called with rows done and rows in all, and shows them with rate and time left.

    Args:
        stream: where; standard error if ``None``.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._moving = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._open = False

    def __call__(self, done: int, total: int | None) -> None:
        """Show it, if it is time."""
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._moving else INTERVAL):
            self._shown = now
            self._write(self._line(done, total, now - self._start))
        if self._open and done == total:
            self._stream.write("\n")
            self._open = False

    def _write(self, line: str) -> None:
        if self._moving:
            self._stream.write(f"\r\x1b[K{line}")
            self._open = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _line(self, done: int, total: int | None, seconds: float) -> str:
        rate = done / max(seconds, 1e-9)
        if total is None:
            return f"encoded {done:,} rows ({rate:,.0f} rows/s)"
        left = round((total - done) / max(rate, 1e-9))
        return f"encoded {done:,} of {total:,} rows ({rate:,.0f} rows/s, {left // 60}m {left % 60}s left)"
