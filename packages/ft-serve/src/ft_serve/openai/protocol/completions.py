"""``/v1/completions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ft_serve.openai.protocol.messages import Answer, TokenId, absent
from ft_serve.openai.protocol.sampling import SamplingFields
from ft_serve.openai.protocol.usage import Usage

TokenIds = Annotated[list[TokenId], Field(min_length=1)]

Prompts = (
    str
    | Annotated[list[str], Field(min_length=1)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1)]
)


class CompletionRequest(SamplingFields):
    """Texts to be continued, as text or as token ids."""

    prompt: Prompts
    max_tokens: int | None = Field(None, ge=0, lt=2**31)
    """0 generates nothing, which with ``echo`` and ``logprobs`` scores the prompt."""

    echo: bool | None = None
    """Give the prompt back in front of the answer."""

    logprobs: int | None = Field(None, ge=0, le=20)
    """Give the log-probability of each token and of this many likeliest ones."""

    suffix: str | None = None
    best_of: int | None = Field(None, ge=1)
    add_special_tokens: bool | None = None
    """False leaves out the token that begins texts."""


class CompletionLogprobs(Answer):
    """Log-probabilities of a text's tokens; the first token of a prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    """One of the continuations: choice ``i * n + k`` is the ``k``-th of prompt ``i``."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: str | int | None = Field(None, exclude_if=absent)


class Completion(Answer):
    """All continuations, or in a stream more of one of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = Field(None, exclude_if=absent)
    system_fingerprint: str
