"""Fields of requests that say how tokens are chosen."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ft_serve.openai.protocol.messages import ApiRequest, Part, TokenId

Stop = Annotated[str, Field(max_length=1000)]


class StreamOptions(Part):
    """What a streamed answer brings beyond its text."""

    include_usage: bool | None = None
    """End with a chunk that counts tokens."""

    continuous_usage_stats: bool | None = None
    """Count tokens in every chunk."""


class SamplingFields(ApiRequest):
    """OpenAI's fields, and those that vLLM's clients send as well. ``null`` means the server's default."""

    model: str | None = Field(None, max_length=1000)
    """The model, or an adapter by its name; none takes what the server was started with."""

    n: int | None = Field(None, ge=1)
    """Answers to each prompt."""

    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    """0 takes the likeliest token each time."""

    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    """Choose among the likeliest tokens that hold this much probability."""

    top_k: int | None = Field(None, ge=-1, lt=2**31)
    """Choose among this many tokens; 0 and -1 set no limit."""

    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """Leave out tokens with less than this share of the likeliest one's probability."""

    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Makes the answer repeatable."""

    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    """Taken from a token's score for each time the answer has it."""

    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    """Taken from a token's score once the answer has it."""

    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    """Divides the score of tokens that occurred; 1 changes nothing."""

    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = (
        Field(None, max_length=1024)
    )
    """Token id → what is added to its score."""

    stop: Stop | list[Stop] | None = None
    """Strings that end the answer and are no part of it."""

    stop_token_ids: list[TokenId] | None = Field(None, max_length=256)
    """Further tokens that end the answer."""

    ignore_eos: bool | None = None
    """Go on after tokens that end answers."""

    min_tokens: int | None = Field(None, ge=0, lt=2**31)
    """Nothing ends the answer before it has this many tokens."""

    skip_special_tokens: bool | None = None
    """False shows special tokens in the text."""

    stream: bool | None = None
    """Send the answer piece by piece as server-sent events."""

    stream_options: StreamOptions | None = None

    user: str | None = Field(None, max_length=1000)
    """Taken, and not looked at."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings that say anything."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)
