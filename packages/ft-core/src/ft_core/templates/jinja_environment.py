"""Compiling and rendering Jinja chat templates the way transformers does, without importing it."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ft_core.errors import DataError, ModelError
from ft_core.templates.sentinels import SENTINEL, meaning

_REASONING = re.compile(r"\breasoning_content\b|(?<=\.)thinking\b|(?<=['\"])thinking(?=['\"])")


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}`` marks answers for other libraries; it renders its body."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class ChatTemplate:
    """A compiled Jinja chat template.

    Args:
        source: the Jinja text.
        today: the date that ``strftime_now`` gives, so that the same rows always render to the same text.
        variables: further variables the template may read, such as ``enable_thinking``, and the named
            special tokens.

    Attributes:
        takes_parts: contents are handed over as lists of parts, which templates of multimodal models want.
        arguments_as_text: arguments of calls are handed over as JSON text instead of an object.
        short_ids: calls and results are handed over with ids of nine letters and digits.

    Raises:
        ModelError: the text is no valid Jinja.
    """

    def __init__(self, source: str, *, today: datetime.date, variables: Mapping[str, Any]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _clock(today)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"the tokenizer's chat template is no valid Jinja (line {error.lineno}: {error.message}); give a registered --template_type"
            ) from error
        self._variables = dict(variables)
        self._reasoning = _REASONING.search(source)
        self.takes_parts = False
        self._takes_media: dict[str, bool] = {}
        self.arguments_as_text = False
        self.short_ids = False

    @property
    def reasoning_field(self) -> str | None:
        """The message field in which the template looks for an answer's reasoning."""
        return None if self._reasoning is None else self._reasoning[0]

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        *,
        add_generation_prompt: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a conversation; ``variables`` go before those the template was made with.

        Raises:
            DataError: the template refuses the conversation; the message carries its own words.
        """
        try:
            return self._template.render(
                messages=self._handed_over(messages),
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{**self._variables, **(variables or {})},
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise DataError(
                f"the tokenizer's chat template refuses the conversation: {error}",
                rule="template_refuses",
            ) from error

    def takes_media(self, kind: str) -> bool:
        """Whether the template writes something for a part of this kind (``image``, ``video``, ``audio``)."""
        if kind not in self._takes_media:
            text = {"type": "text", "text": "Szqxtext"}
            with_medium = [{"role": "user", "content": [{"type": kind}, text]}]
            without = [{"role": "user", "content": [text]}]
            try:
                written = self._template.render(messages=with_medium, **self._variables)
                plain = self._template.render(messages=without, **self._variables)
            except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError):
                written = plain = ""
            # One that only knows texts may write the list out as it is.
            self._takes_media[kind] = written != plain and "'type'" not in written
        return self._takes_media[kind]

    def _handed_over(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        messages = [self._with_parts(message) for message in messages]
        if self.arguments_as_text:
            messages = [_with_text_arguments(message) for message in messages]
        return _with_short_ids(messages) if self.short_ids else messages

    def _with_parts(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return a message with its content as a list of parts, where the template wants it or there are media."""
        content = message.get("content")
        if not isinstance(content, str) or content.isascii() or not SENTINEL.search(content):
            parts = [{"type": "text", "text": content}]
            return {**message, "content": parts} if self.takes_parts else message
        made: list[dict[str, Any]] = []
        for piece in re.split(f"({SENTINEL.pattern})", content):
            kind = meaning(piece)[0] if SENTINEL.fullmatch(piece) else "text"
            if kind in ("text", "token") or not self.takes_media(kind):
                if made and made[-1]["type"] == "text":
                    made[-1]["text"] += piece
                elif piece:
                    made.append({"type": "text", "text": piece})
            else:
                made.append({"type": kind})
        if all(part["type"] == "text" for part in made) and not self.takes_parts:
            return message
        return {**message, "content": made}


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        arguments = function["arguments"]
        text = arguments if isinstance(arguments, str) else _to_json(arguments)
        calls.append({**call, "function": {**function, "arguments": text}})
    return {**message, "tool_calls": calls}


def _with_short_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the calls; a result without an id belongs to the first call that has no result yet."""
    result: list[dict[str, Any]] = []
    given: dict[str, str] = {}
    waiting: list[str] = []
    count = 0
    for message in messages:
        if message.get("tool_calls"):
            calls, waiting = [], []
            for call in message["tool_calls"]:
                count += 1
                waiting.append(f"call{count:05d}")
                if "id" in call:
                    given[call["id"]] = waiting[-1]
                calls.append({**call, "id": waiting[-1]})
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool":
            known = given.get(message.get("tool_call_id", ""))
            short = known or (waiting[0] if waiting else "call00000")
            waiting = [item for item in waiting if item != short]
            message = {**message, "tool_call_id": short}
        result.append(message)
    return result


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _clock(today: datetime.date) -> Callable[[str], str]:
    moment = datetime.datetime.combine(today, datetime.time())
    return moment.strftime
