"""From a request's messages to the token ids that the model is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ft_core.examples import Message, Part, ToolCall
from ft_core.templates.template import Segment, Template
from ft_serve.openai.errors import ApiError
from ft_serve.openai.media import MediaRules
from ft_serve.openai.protocol.chat import (
    ChatRequest,
    FunctionTool,
    GivenMessage,
    MediaPart,
    RefusalPart,
    TextPart,
)

_OWN_VARIABLES = frozenset(
    {
        *(
            "messages",
            "tools",
            "documents",
            "conversation",
            "chat_template",
            "add_generation_prompt",
        ),
        *("continue_final_message", "tokenize", "return_tensors", "return_dict", "bos_token"),
        *("eos_token", "padding", "truncation", "max_length", "strftime_now", "raise_exception"),
    }
)
"""What a request may not set in a chat template."""

LONGEST_VARIABLE = 4096


def messages_of(
    given: Sequence[GivenMessage], *, reasons: bool, media: MediaRules | None = None
) -> list[Message]:
    """Return a request's messages as templates take them.

    Args:
        given: the messages.
        reasons: the chat format has a place for an answer's reasoning.
        media: what may be sent; ``None`` where the model takes texts only.

    Raises:
        ApiError: one can't be taken.
    """
    called: dict[str, str] = {}
    messages: list[Message] = []
    for index, item in enumerate(given):
        message = _message(item, index, called, reasons=reasons, media=media)
        called |= {call.id: call.name for call in message.tool_calls if call.id}
        last = messages[-1] if messages else None
        if last is not None and last.role == message.role == "system":
            messages[-1] = Message("system", f"{last.text}\n\n{message.text}")
        else:
            messages.append(message)
    if media is not None:
        _check_number(messages, media)
    return messages


def _message(
    item: GivenMessage,
    index: int,
    called: Mapping[str, str],
    *,
    reasons: bool,
    media: MediaRules | None,
) -> Message:
    place = f"messages[{index}]"
    if item.content is None and not item.tool_calls and item.role != "assistant":
        raise ApiError(400, f"{place}.content is missing; give a text", param="messages")
    if item.role == "user" and media is not None:
        return Message("user", _content(item, place, media), name=item.name)
    text = _text(item, place)
    if item.role == "tool":
        name = item.name or called.get(item.tool_call_id or "")
        return Message("tool", text, tool_call_id=item.tool_call_id, name=name)
    if item.role != "assistant":
        return Message("user" if item.role == "user" else "system", text, name=item.name)
    reasoning = item.reasoning or item.reasoning_content
    if reasons and reasoning:
        text = f"<think>\n{reasoning}\n</think>\n\n{text}"
    calls = tuple(
        ToolCall.from_json(
            {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        )
        for call in item.tool_calls or ()
    )
    if not text.strip() and not calls:
        raise ApiError(400, f"{place}: the assistant's message is empty", param="messages")
    return Message("assistant", text, calls)


def _content(item: GivenMessage, place: str, media: MediaRules) -> tuple[Part, ...]:
    """Return a user's content; marks in its texts, such as ``<image>``, are texts here."""
    given = item.content if isinstance(item.content, list) else [item.content or ""]
    parts: list[Part] = []
    for number, part in enumerate(given):
        if isinstance(part, MediaPart):
            parts.append(media.part(part.model_dump(), f"{place}.content[{number}]"))
            continue
        text = part if isinstance(part, str) else _said(part)
        parts.append({"type": "text", "text": text, "literal": True})
    return tuple(parts)


def _said(part: TextPart | RefusalPart) -> str:
    return part.text if isinstance(part, TextPart) else part.refusal


def _check_number(messages: Sequence[Message], media: MediaRules) -> None:
    count = sum(
        part["type"] != "text"
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
    )
    if count > media.most:
        raise ApiError(
            400,
            f"the request brings {count} images, videos and audios; at most {media.most} are taken",
            param="messages",
            code="invalid_media",
        )


def _text(item: GivenMessage, place: str) -> str:
    if item.content is None or isinstance(item.content, str):
        return item.content or ""
    texts = []
    for number, part in enumerate(item.content):
        if isinstance(part, MediaPart):
            raise ApiError(
                400,
                f"{place}.content[{number}] is {part.type}; this model takes text only here",
                param="messages",
                code="media_not_supported",
            )
        texts.append(_said(part))
    return "".join(texts)


def variables_of(body: ChatRequest) -> dict[str, Any]:
    """Return what a request tells the chat template.

    Raises:
        ApiError: it sets what it may not, or more than a plain value.
    """
    return {**_effort(body), **checked_variables(body.chat_template_kwargs)}


def checked_variables(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return variables of a chat template that a request may set.

    Raises:
        ApiError: it sets what it may not, or more than a plain value.
    """
    for name, value in (given or {}).items():
        plain = isinstance(value, bool | int | float | str | None)
        if name in _OWN_VARIABLES or not name.isidentifier() or not plain:
            raise ApiError(
                400,
                "chat_template_kwargs takes names of a template's variables with numbers, texts or truth "
                "values, such as enable_thinking",
                param="chat_template_kwargs",
            )
        if isinstance(value, str) and len(value) > LONGEST_VARIABLE:
            raise ApiError(
                400, "chat_template_kwargs: a text is too long", param="chat_template_kwargs"
            )
    return dict(given or {})


def _effort(body: ChatRequest) -> dict[str, Any]:
    if body.reasoning_effort is None:
        return {}
    if body.reasoning_effort == "none":
        return {"enable_thinking": False}
    return {"reasoning_effort": body.reasoning_effort}


def functions_of(given: Sequence[FunctionTool] | None) -> list[dict[str, Any]]:
    """Return functions as templates take them."""
    return [tool.model_dump(exclude_none=True) for tool in given or ()]


def render(
    template: Template,
    messages: Sequence[Message],
    functions: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    *,
    continues: bool,
) -> list[Segment]:
    """Render what the model is fed.

    Args:
        template: the chat format.
        messages: the conversation.
        functions: that may be called.
        variables: of the template.
        continues: the last message is the beginning of the answer.

    Raises:
        DataError: the conversation doesn't fit the format.
    """
    if not continues:
        return template.render_prompt(messages, functions, variables)
    begun = messages[-1] if messages else None
    if begun is None or begun.role != "assistant" or begun.tool_calls:
        raise ApiError(
            400,
            "continue_final_message needs a last message of the assistant with text",
            param="continue_final_message",
        )
    prompt = template.render_prompt(messages[:-1], functions, variables)
    return [*prompt, Segment(begun.text, "content", "assistant")]
