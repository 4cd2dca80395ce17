"""From an answer's text to what it says: reasoning, content and calls, whole or piece by piece."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from ft_core.agents import AGENTS, AgentFormat, StreamParser
from ft_core.agents.formats import arguments_of
from ft_core.examples import ToolCall as ReadCall
from ft_core.templates.template import Template
from ft_serve.openai.forced_calls import CallPiece, ListOfCalls, OneCall
from ft_serve.openai.protocol.chat import (
    ChatDelta,
    ChatMessage,
    FunctionCall,
    FunctionCallPiece,
    ToolCall,
    ToolCallPiece,
)
from ft_serve.openai.reasoning import ReasoningReader

_OWN_FORMS = (
    ("[TOOL_CALLS]", "mistral"),
    ("<｜tool▁calls▁begin｜>", "deepseek"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama3"),
    ("<|observation|>", "glm4"),
)


def agent_of(template: Template) -> AgentFormat:
    """Return how a chat format's model writes calls."""
    if template.tools_prompt is not None:
        return AGENTS.get(template.tools_prompt)
    source = template.to_jinja()
    found = (name for mark, name in _OWN_FORMS if mark in source)
    # A template with a form of its own that shows no mark: most of today's write calls as Hermes does.
    return AGENTS.get(next(found, "hermes"))


@dataclass(frozen=True, slots=True)
class Piece:
    """What became certain of an answer."""

    reasoning: str = ""
    content: str = ""
    calls: Sequence[CallPiece] = ()

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class AnswerReader:
    """Reads one answer as it comes.

    Args:
        reasoning: tells reasoning from the rest; ``None`` where there is none.
        agent: how calls look; ``None`` where there are no functions.
        forced: reads an answer that is held to calls.
        most_calls: further calls are left aside.
    """

    def __init__(
        self,
        reasoning: ReasoningReader | None = None,
        agent: AgentFormat | None = None,
        forced: OneCall | ListOfCalls | None = None,
        most_calls: int | None = None,
    ) -> None:
        self._reasoning = reasoning
        self._parser = None if agent is None else StreamParser(agent)
        self._forced = forced
        self._most_calls = most_calls
        self._ids: dict[int, str] = {}

    @property
    def called(self) -> bool:
        """Whether there is a call."""
        return bool(self._ids)

    def feed(self, text: str) -> Piece:
        """Take more of the answer and return what became certain."""
        reasoning = ""
        if self._reasoning is not None:
            reasoning, text = self._reasoning.feed(text)
        return self._read(reasoning, text)

    def close(self) -> Piece:
        """End the answer and return what was held back."""
        reasoning, text = ("", "") if self._reasoning is None else self._reasoning.close()
        piece = self._read(reasoning, text)
        if self._parser is None:
            return piece
        last = self._parser.close()
        calls = [_piece(index, call) for index, call in enumerate(last.tool_calls)]
        return Piece(piece.reasoning, piece.content + last.content, self._counted(calls))

    def _read(self, reasoning: str, text: str) -> Piece:
        if self._forced is not None:
            return Piece(reasoning, "", self._counted(self._forced.feed(text)))
        if self._parser is not None:
            text = self._parser.feed(text)
        return Piece(reasoning, text)

    def _counted(self, calls: Sequence[CallPiece]) -> list[CallPiece]:
        most = self._most_calls
        kept = [call for call in calls if most is None or call.index < most]
        for call in kept:
            self._ids.setdefault(call.index, f"call_{uuid.uuid4().hex[:24]}")
        return kept

    def delta(self, piece: Piece) -> ChatDelta:
        """Return a piece as a stream sends it."""
        return ChatDelta(
            content=piece.content or None,
            reasoning=piece.reasoning or None,
            reasoning_content=piece.reasoning or None,
            tool_calls=[self._call_piece(call) for call in piece.calls] or None,
        )

    def _call_piece(self, call: CallPiece) -> ToolCallPiece:
        first = call.name is not None
        return ToolCallPiece(
            index=call.index,
            id=self._ids[call.index] if first else None,
            type="function" if first else None,
            function=FunctionCallPiece(name=call.name, arguments=call.arguments),
        )

    def message(self, pieces: Sequence[Piece]) -> ChatMessage:
        """Return all pieces as one message."""
        reasoning = "".join(piece.reasoning for piece in pieces) or None
        content = "".join(piece.content for piece in pieces)
        calls: dict[int, tuple[str, str]] = {}
        for call in (call for piece in pieces for call in piece.calls):
            name, arguments = calls.get(call.index, (call.name or "", ""))
            calls[call.index] = (name, arguments + call.arguments)
        return ChatMessage(
            content=(content or None) if calls else content,
            reasoning=reasoning,
            reasoning_content=reasoning,
            tool_calls=[
                ToolCall(id=self._ids[index], function=FunctionCall(name=name, arguments=arguments))
                for index, (name, arguments) in calls.items()
            ]
            or None,
        )


def _piece(index: int, call: ReadCall) -> CallPiece:
    return CallPiece(index, arguments_of(call), call.name)
