"""Answers in a terminal as formatted text, block by block while they come."""

from __future__ import annotations

import re

from rich.console import Console
from rich.markdown import Markdown

_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


class MarkdownWriter:
    """Collects an answer and prints each paragraph, list or code block once it is complete.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""

    def push(self, text: str) -> None:
        """Add text; what can't change any more is printed."""
        self._text += text
        end = _complete(self._text)
        if end:
            self._print(self._text[:end])
            self._text = self._text[end:]

    def finish(self) -> None:
        """Print the rest."""
        self._print(self._text)
        self._text = ""

    def _print(self, text: str) -> None:
        if text.strip():
            self._console.print(Markdown(text.strip("\n")))


def _complete(text: str) -> int:
    """Length of the blocks that are over: up to the last blank line outside of code."""
    for match in reversed(list(re.finditer(r"\n[ \t]*\n", text))):
        if len(_FENCE.findall(text[: match.end()])) % 2 == 0:
            return match.end()
    return 0
