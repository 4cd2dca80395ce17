"""Counts of tokens in answers."""

from __future__ import annotations

from pydantic import Field

from ft_serve.openai.protocol.messages import Answer, absent


class PromptTokensDetails(Answer):
    """What became of the prompt's tokens."""

    cached_tokens: int = 0
    """Those that an earlier request had computed."""


class Usage(Answer):
    """Tokens of one request, all its prompts and answers together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(None, exclude_if=absent)

    @classmethod
    def of(cls, prompt: int, completion: int, cached: int = 0) -> Usage:
        """Return the counts; cached tokens are only told of where there are some."""
        details = PromptTokensDetails(cached_tokens=cached) if cached else None
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=details,
        )
