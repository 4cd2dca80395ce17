"""Single tokens as text and as bytes, for log-probabilities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ft_core.engine import TokenLogprob as EngineLogprob
from ft_core.tokenizer import Tokenizer
from ft_serve.openai.protocol.chat import ChatLogprobs, TokenLogprob, TopLogprob

LEAST_LOGPROB = -9999.0
"""JSON has no minus infinity."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def _byte_characters() -> dict[str, int]:
    """Return the characters that byte-level BPE writes bytes with (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_characters()


@lru_cache(maxsize=4)
def texts_of(tokenizer: Tokenizer) -> TokenTexts:
    """Return the texts of a tokenizer's tokens, which are worked out once."""
    return TokenTexts(tokenizer)


class TokenTexts:
    """Texts of a tokenizer's tokens, as they stand within a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        before = tokenizer.encode("a")[-1:]
        self._before = before
        self._skipped = len(tokenizer.decode(before))
        self.pair = lru_cache(65_536)(self._pair)

    def text(self, token_id: int) -> str:
        """Return a token's text; what is no whole character becomes a replacement character."""
        return self.pair(token_id)[0]

    def label(self, token_id: int) -> str:
        """Return a token's text, or its bytes as OpenAI writes them where it is no whole character."""
        text, encoded = self.pair(token_id)
        if UNFINISHED not in text:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in encoded)

    def _pair(self, token_id: int) -> tuple[str, list[int]]:
        text = self._tokenizer.decode([*self._before, token_id])[self._skipped :]
        if UNFINISHED not in text:
            return text, list(text.encode())
        name = self._tokenizer.id_to_token(token_id) or ""
        if found := _BYTE_TOKEN.match(name):
            return text, [int(found[1], 16)]
        if name and all(character in _BYTES for character in name):
            return text, [_BYTES[character] for character in name]
        return text, list(text.encode())

    def chat(self, tokens: Sequence[EngineLogprob], top: int) -> ChatLogprobs:
        """Return log-probabilities in the form of chat answers."""
        return ChatLogprobs(content=[self._chat_token(token, top) for token in tokens])

    def _chat_token(self, token: EngineLogprob, top: int) -> TokenLogprob:
        text, encoded = self.pair(token.token_id)
        likeliest = []
        for token_id, logprob in token.top[:top]:
            its_text, its_bytes = self.pair(token_id)
            likeliest.append(TopLogprob(token=its_text, logprob=finite(logprob), bytes=its_bytes))
        return TokenLogprob(
            token=text, logprob=finite(token.logprob), bytes=encoded, top_logprobs=likeliest
        )


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)
