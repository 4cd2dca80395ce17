"""What is wrong with an image, video or audio."""

from __future__ import annotations

from ft_core.errors import DataError

SHOWN = 80


class MediaError(DataError):
    """A medium that can't be used.

    Args:
        message: what is wrong and what to do.
        source: its path, address or data URI.
        rule: a short machine-readable name of what is wrong.
    """

    def __init__(self, message: str, source: str, rule: str) -> None:
        super().__init__(f"{shown(source)}: {message}", rule=rule)


def shown(source: str) -> str:
    """Return a source as messages show it: data URIs and contents in base64 only by their beginning."""
    if source.startswith("data:"):
        return source.partition(",")[0] + ",…"
    return source if len(source) <= SHOWN or "/" in source[:SHOWN] else source[:SHOWN] + "…"
