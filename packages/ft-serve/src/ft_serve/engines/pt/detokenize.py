"""From tokens to text as they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoding shows for the first bytes of a character whose last ones are still to come."""


class Decoder(Protocol):
    """The one thing the engine needs of a tokenizer: ft's own and transformers' tokenizers have it."""

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool) -> str:
        """Return the text of these tokens."""
        ...


class TextStream:
    """The text of one answer, given out as soon as it is final.

    A piece is decoded together with the tokens of the piece before it, because some tokenizers write a
    word's first token differently at the beginning of a text.

    Args:
        decoder: the tokenizer.
        skip_special_tokens: leave special tokens out of the text.
    """

    def __init__(self, decoder: Decoder, *, skip_special_tokens: bool = True) -> None:
        self._decoder = decoder
        self._skip = skip_special_tokens
        self._tokens: list[int] = []
        self._context = 0
        self._piece = 0
        self._sent = 0

    def push(self, token: int) -> str:
        """Add a token and return the text that became final, often none."""
        self._tokens.append(token)
        text = self._decode(self._context)
        # With byte tokens, one unfinished character hides the finished ones right before it as well.
        final = text.rstrip(UNFINISHED)
        news, self._sent = final[self._sent :], max(self._sent, len(final))
        if text and final == text:
            self._context, self._piece = self._piece, len(self._tokens)
            self._sent = len(self._decode(self._context))
        return news

    def finish(self) -> str:
        """Return what is left, whole or not."""
        text = self._decode(self._context)
        news, self._sent = text[self._sent :], len(text)
        return news

    def _decode(self, begin: int) -> str:
        tokens = self._tokens[begin:]
        return self._decoder.decode(tokens, skip_special_tokens=self._skip) if tokens else ""


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
