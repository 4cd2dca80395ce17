"""The canonical row: what every data format is read into and what every template renders.

Field names follow the conversational convention of the Hugging Face libraries: ``messages`` of
``{"role", "content", "tool_calls"}``, ``tools`` as JSON schemas. ``to_json`` and ``from_json`` are
inverse, and both are plain JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from ft_core.errors import DataError, Place

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

Part = Mapping[str, Any]
"""One piece of a multimodal content: ``{"type": "text", "text": …}``, ``{"type": "image", …}``."""

Source = Place
"""Where a row came from; ``field`` is set only in errors."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the assistant makes: ``arguments`` is a JSON object, or the text as it was given."""

    name: str
    arguments: Mapping[str, Any] | str
    id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the OpenAI form ``{"type": "function", "function": {…}}``."""
        call: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }
        return call if self.id is None else {"id": self.id, **call}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolCall:
        """Read the OpenAI form or a flat ``{"name", "arguments"}``; arguments may be a JSON string."""
        function = data.get("function", data)
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                parsed = json.loads(arguments)
            except json.JSONDecodeError:
                parsed = None
            if isinstance(parsed, dict):
                arguments = parsed
        return cls(name=str(function["name"]), arguments=arguments, id=data.get("id"))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``weight`` scales the loss of an assistant turn; ``None`` leaves it to the recipe."""

    role: Role
    content: str | tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    weight: float | None = None
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as text; parts that are not text are skipped."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part["text"]) for part in self.content if part.get("type") == "text")

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form; fields that are unset are left out."""
        data: dict[str, Any] = {
            "role": self.role,
            "content": self.content
            if isinstance(self.content, str)
            else [dict(p) for p in self.content],
        }
        if self.tool_calls:
            data["tool_calls"] = [call.to_json() for call in self.tool_calls]
        for key in ("weight", "tool_call_id", "name"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        """Read the form that ``to_json`` writes."""
        content = data.get("content")
        return cls(
            role=cast(Role, data["role"]),
            content=""
            if content is None
            else content
            if isinstance(content, str)
            else tuple(content),
            tool_calls=tuple(ToolCall.from_json(call) for call in data.get("tool_calls") or ()),
            weight=data.get("weight"),
            tool_call_id=data.get("tool_call_id"),
            name=data.get("name"),
        )


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a conversation, a preference, a labelled answer, or plain text.

    Attributes:
        messages: the conversation; for a preference it ends with the chosen answer.
        rejected: the turns that replace the last assistant turn in the rejected continuation.
        label: whether the answer is desirable (KTO).
        tools: functions the assistant may call, as JSON-schema objects.
        images, videos, audios: paths, URLs or data URIs in order of their marks.
        objects: names and boxes of things in the images, in order of ``<ref-object>`` and ``<bbox>`` in the texts.
        text: raw text for pre-training; then ``messages`` is empty.
        chat_template_kwargs: variables of the chat template for this row, such as ``enable_thinking``.
        source: where the row came from, for messages and reports.
        input_ids: token ids of a row that is encoded already; then there are neither messages nor text.
        labels: for each of ``input_ids`` the same id where it is learned, or -100.
        weight: scales the loss of the whole row.
        margin: by how much the chosen answer should be worth more than the rejected one to a reward model.
        aside: columns of the source that say nothing of the row's training, as they were read.
    """

    messages: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] | None = None
    label: bool | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    audios: tuple[str, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None
    source: Source | None = None
    chat_template_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    input_ids: tuple[int, ...] | None = None
    labels: tuple[int, ...] | None = None
    weight: float = 1.0
    margin: float = 0.0
    aside: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def system(self) -> str | None:
        """The system message's text; ``None`` when there is none (``""`` is an explicit empty one)."""
        return (
            self.messages[0].text if self.messages and self.messages[0].role == "system" else None
        )

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn: what serving would be asked."""
        end = len(self.messages)
        if self.messages and self.messages[-1].role == "assistant":
            end -= 1
        return self.messages[:end]

    @property
    def answer(self) -> str | None:
        """Text of the closing assistant turn, or ``None``."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[-1].text
        return None

    def with_system(self, system: str | None) -> Example:
        """Return the row with this system message; ``None`` leaves the row as it is."""
        if system is None or not self.messages:
            return self
        rest = self.messages[1:] if self.messages[0].role == "system" else self.messages
        return replace(self, messages=(Message("system", system), *rest))

    def validate(self) -> None:
        """Check the row's own rules.

        Raises:
            DataError: with the row's source, the field and the rule that is broken.
        """
        if self.input_ids is not None or self.labels is not None:
            self._validate_ids()
            return
        if self.text is not None:
            if self.messages:
                self._fail(
                    "has both text and messages; keep one of them", "text", "text_and_messages"
                )
            if not self.text.strip():
                self._fail("is empty", "text", "empty_text")
            return
        if not self.messages:
            self._fail("has no messages and no text", "messages", "empty_row")
        for index, message in enumerate(self.messages):
            field = f"messages[{index}]"
            if message.role not in ROLES:
                self._fail(
                    f"role {message.role!r} is unknown; use one of {', '.join(ROLES)}",
                    field,
                    "unknown_role",
                )
            if message.role == "system" and index > 0:
                self._fail("a system message is only allowed at the start", field, "late_system")
            if message.role == "assistant" and not message.text.strip() and not message.tool_calls:
                self._fail("the assistant's answer is empty", field, "missing_answer")
        if not any(message.role == "assistant" for message in self.messages):
            self._fail("has no assistant answer to learn from", "messages", "missing_answer")

    def _validate_ids(self) -> None:
        if self.text is not None or self.messages:
            self._fail(
                "stands beside text or messages; keep one of them", "input_ids", "ids_and_text"
            )
        if not self.input_ids:
            self._fail("has no token", "input_ids", "empty_row")
        elif self.labels is None or len(self.labels) != len(self.input_ids):
            given = "missing" if self.labels is None else f"{len(self.labels)} labels"
            self._fail(
                f"there must be a label for each of {len(self.input_ids)} tokens, but there are {given}",
                "labels",
                "wrong_length",
            )
        else:
            pairs = enumerate(zip(self.input_ids, self.labels, strict=True))
            wrong = next((i for i, (token, label) in pairs if label not in (-100, token)), None)
            if wrong is not None:
                shifted = wrong + 1 < len(self.labels) and all(
                    label in (-100, token)
                    for token, label in zip(self.input_ids[1:], self.labels, strict=False)
                )
                hint = "; they are shifted by one place, shift them back" if shifted else ""
                self._fail(
                    f"label {wrong} is {self.labels[wrong]}; it must be the token {self.input_ids[wrong]} that "
                    f"stands at its place, or -100 where nothing is learned{hint}",
                    "labels",
                    "wrong_label",
                )

    def _fail(self, message: str, field: str, rule: str) -> None:
        source = self.source or Place("row")
        raise DataError(message, path=source.path, line=source.line, field=field, rule=rule)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; empty fields are left out, and so are ``source`` and ``aside``."""
        data: dict[str, Any] = {}
        if self.messages:
            data["messages"] = [message.to_json() for message in self.messages]
        if self.rejected is not None:
            data["rejected"] = [message.to_json() for message in self.rejected]
        for key in ("label", "text"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        for key in ("tools", "images", "videos", "audios", "objects"):
            if items := getattr(self, key):
                data[key] = list(items)
        if self.chat_template_kwargs:
            data["chat_template_kwargs"] = dict(self.chat_template_kwargs)
        for key in ("input_ids", "labels"):
            if (ids := getattr(self, key)) is not None:
                data[key] = list(ids)
        if self.weight != 1:
            data["weight"] = self.weight
        if self.margin:
            data["margin"] = self.margin
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: Source | None = None) -> Example:
        """Read the form that ``to_json`` writes."""
        rejected: Sequence[Mapping[str, Any]] | None = data.get("rejected")
        return cls(
            messages=tuple(Message.from_json(item) for item in data.get("messages", ())),
            rejected=None
            if rejected is None
            else tuple(Message.from_json(item) for item in rejected),
            label=data.get("label"),
            tools=tuple(data.get("tools", ())),
            images=tuple(data.get("images", ())),
            videos=tuple(data.get("videos", ())),
            audios=tuple(data.get("audios", ())),
            objects=tuple(data.get("objects", ())),
            text=data.get("text"),
            chat_template_kwargs=data.get("chat_template_kwargs") or {},
            input_ids=_ids(data.get("input_ids")),
            labels=_ids(data.get("labels")),
            weight=data.get("weight", 1.0),
            margin=data.get("margin", 0.0),
            source=source,
        )


def _ids(value: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)
