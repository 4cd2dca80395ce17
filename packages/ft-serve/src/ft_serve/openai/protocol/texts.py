"""``/v1/embeddings``, ``/tokenize``, ``/detokenize`` and ``/tokenizer_info``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ft_serve.openai.protocol.chat import FunctionTool, GivenMessage
from ft_serve.openai.protocol.completions import Prompts
from ft_serve.openai.protocol.messages import Answer, ApiRequest, TokenId
from ft_serve.openai.protocol.usage import Usage


class EmbeddingRequest(ApiRequest):
    """Texts whose vectors are wanted."""

    input: Prompts
    model: str | None = Field(None, max_length=1000)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = Field(None, max_length=1000)


class Embedding(Answer):
    """A vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(Answer):
    """The vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class TokenizeRequest(ApiRequest):
    """A text, or a conversation with the chat format around it."""

    model: str | None = Field(None, max_length=1000)
    prompt: str | None = None
    messages: list[GivenMessage] | None = Field(None, min_length=1)
    tools: list[FunctionTool] | None = Field(None, min_length=1, max_length=512)
    chat_template_kwargs: dict[str, Any] | None = Field(None, max_length=32)
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class Tokenized(Answer):
    """Token ids."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(ApiRequest):
    """Token ids."""

    model: str | None = Field(None, max_length=1000)
    tokens: list[TokenId]


class Detokenized(Answer):
    """Their text."""

    prompt: str


class TokenizerInfo(Answer):
    """What a client needs to render and cut texts itself."""

    tokenizer_class: str
    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    eos_token_id: int | None
    vocab_size: int
    model_max_length: int | None
