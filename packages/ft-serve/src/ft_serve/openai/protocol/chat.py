"""``/v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ft_serve.openai.protocol.messages import Answer, Part, absent
from ft_serve.openai.protocol.sampling import SamplingFields
from ft_serve.openai.protocol.usage import Usage


class TextPart(Part):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(Part):
    """What an assistant refused earlier."""

    type: Literal["refusal"]
    refusal: str


class MediaPart(Part):
    """An image, a sound or a film; models of text refuse it."""

    model_config = ConfigDict(extra="allow")

    type: Literal["image_url", "input_audio", "audio_url", "video_url", "file"]


ContentPart = Annotated[TextPart | RefusalPart | MediaPart, Field(discriminator="type")]


class CalledFunction(Part):
    """A function with the arguments it was called with, as JSON text."""

    name: str = Field(min_length=1, max_length=256)
    arguments: str = "{}"


class GivenCall(Part):
    """A call that an assistant made earlier."""

    id: str | None = Field(None, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction


class GivenMessage(Part):
    """A turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = Field(None, max_length=256)
    tool_calls: list[GivenCall] | None = None
    tool_call_id: str | None = Field(None, max_length=256)
    reasoning: str | None = None
    reasoning_content: str | None = None


class FunctionDefinition(Part):
    """A function the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.\-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """Its arguments as a JSON schema."""

    strict: bool | None = None


class FunctionTool(Part):
    """A tool."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class NamedFunction(Part):
    """A function's name."""

    name: str


class NamedToolChoice(Part):
    """The one function that is to be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchemaFormat(Part):
    """The JSON schema of an answer."""

    name: str = Field("schema", max_length=256)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Part):
    """What an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class ChatRequest(SamplingFields):
    """A conversation that waits for its next answer."""

    messages: list[GivenMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    """The older name of ``max_completion_tokens``."""

    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[FunctionTool] | None = Field(None, min_length=1, max_length=512)
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, max_length=32)
    """Variables of the chat template, such as ``enable_thinking``."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    """Go on with the last message, which is the assistant's, instead of answering it."""


class TopLogprob(Answer):
    """A token that was likely in a place."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that was chosen, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    """Log-probabilities of an answer's tokens."""

    content: list[TokenLogprob]
    refusal: None = None


class FunctionCall(Answer):
    """A function and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Answer):
    """A call the model makes."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Answer):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | None = Field(None, exclude_if=absent)
    reasoning: str | None = Field(None, exclude_if=absent)
    reasoning_content: str | None = Field(None, exclude_if=absent)


FinishReason = Literal["stop", "length", "tool_calls"]


class ChatChoice(Answer):
    """One of the answers."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason
    stop_reason: str | int | None = None


class ChatCompletion(Answer):
    """All answers to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class FunctionCallPiece(Answer):
    """More of a call."""

    name: str | None = Field(None, exclude_if=absent)
    arguments: str | None = Field(None, exclude_if=absent)


class ToolCallPiece(Answer):
    """More of a call; the first piece has its id, type and name."""

    index: int
    id: str | None = Field(None, exclude_if=absent)
    type: Literal["function"] | None = Field(None, exclude_if=absent)
    function: FunctionCallPiece


class ChatDelta(Answer):
    """More of an answer."""

    role: Literal["assistant"] | None = Field(None, exclude_if=absent)
    content: str | None = Field(None, exclude_if=absent)
    tool_calls: list[ToolCallPiece] | None = Field(None, exclude_if=absent)
    reasoning: str | None = Field(None, exclude_if=absent)
    reasoning_content: str | None = Field(None, exclude_if=absent)


class ChatChunkChoice(Answer):
    """More of one of the answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = Field(None, exclude_if=absent)


class ChatChunk(Answer):
    """An event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = Field(None, exclude_if=absent)
