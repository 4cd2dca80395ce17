"""From tokens to text as they come: never half a character."""

from __future__ import annotations

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
