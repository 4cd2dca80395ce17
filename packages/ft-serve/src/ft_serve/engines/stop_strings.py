"""Ends of answers that are texts, wherever the pieces of the answer are divided."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts a text at the first stop string, wherever the pieces it comes in are divided.

    ``found`` is the string that was found.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(string for string in stop if string)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Add text and return what can't belong to a stop string."""
        if not self._stop or self.found:
            return "" if self.found else text
        self._held += text
        places = [
            (place, string) for string in self._stop if (place := self._held.find(string)) >= 0
        ]
        if places:
            place, self.found = min(places)
            final, self._held = self._held[:place], ""
            return final
        keep = max(_overlap(self._held, string) for string in self._stop)
        cut = len(self._held) - keep
        final, self._held = self._held[:cut], self._held[cut:]
        return final

    def finish(self) -> str:
        """Return the text that was held back and turned out not to be a stop string."""
        final, self._held = self._held, ""
        return final


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
