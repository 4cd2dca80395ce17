"""Progress of long work: one line that is rewritten in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Counts questions and tells rate and time left.

    Args:
        title: what is under way.
        total: how many there are.
        out: where it is shown; standard error if ``None``.
        interval: seconds between two lines where the output is no terminal.
    """

    def __init__(
        self, title: str, total: int, *, out: TextIO | None = None, interval: float = 10
    ) -> None:
        self._title, self._total, self._interval = title, total, interval
        self._out = sys.stderr if out is None else out
        self._live = self._out.isatty()
        self._done = 0
        self._start = self._said = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count questions that are done."""
        self._done += count
        now = time.monotonic()
        last = self._done >= self._total
        if not (self._live or last or now - self._said >= self._interval):
            return
        self._said = now
        spent = max(now - self._start, 1e-9)
        left = spent / max(self._done, 1) * (self._total - self._done)
        line = (
            f"{self._title}: {self._done:,} of {self._total:,}, "
            f"{self._done / spent:.1f} questions/s, {_duration(left)} left"
        )
        self._out.write(f"\r{line}   " if self._live else f"{line}\n")
        if self._live and last:
            self._out.write("\n")
        self._out.flush()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m {rest}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60}m"
