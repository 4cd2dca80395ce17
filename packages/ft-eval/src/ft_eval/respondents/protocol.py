"""What an evaluation asks, what it gets back, and from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ft_core.engine import Sampling
from ft_core.examples import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """What comes before an answer: a conversation, or a plain text that is continued.

    Attributes:
        messages: the conversation up to the question; empty where ``text`` is given.
        text: the plain text, given to the model without any chat format.
        tools: functions that may be called, as JSON schemas.
        beginning: how the answer begins; what is generated or scored follows it.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    beginning: str = ""

    @classmethod
    def ask(cls, question: str, *, system: str | None = None) -> Prompt:
        """Return a conversation of one question."""
        opening = () if system is None else (Message("system", system),)
        return cls((*opening, Message("user", question)))

    @property
    def size(self) -> int:
        """Characters, by which prompts are put in order."""
        return len(self.text or "") + sum(len(message.text) for message in self.messages)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        if self.text is not None:
            return {"text": self.text}
        data: dict[str, Any] = {"messages": [message.to_json() for message in self.messages]}
        if self.tools:
            data["tools"] = [dict(tool) for tool in self.tools]
        if self.beginning:
            data["beginning"] = self.beginning
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prompt:
        """Read what ``to_json`` wrote."""
        if "text" in data:
            return cls(text=data["text"])
        messages = tuple(Message.from_json(item) for item in data["messages"])
        tools = tuple(data.get("tools", ()))
        return cls(messages, tools=tools, beginning=data.get("beginning", ""))


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer.

    Attributes:
        text: what was generated.
        finish_reason: ``stop``, or ``length`` where it was cut off.
        prompt_tokens, generated_tokens: counts; 0 where a server doesn't tell.
        tool_calls: calls that a server took out of the text, in OpenAI's form.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    generated_tokens: int = 0
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a text is after a prompt.

    Attributes:
        logprob: natural logarithm of its probability.
        tokens: how many it has.
        greedy: whether each of them is the most likely one in its place.
    """

    logprob: float
    tokens: int
    greedy: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and texts that might follow it, whose likelihoods are wanted.

    With an empty plain text as the prompt, the text is scored from its beginning; that is how the
    perplexity of a text is measured.
    """

    prompt: Prompt
    continuations: tuple[str, ...]


class Respondent(Protocol):
    """Who is asked."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything its answers depend on, as plain JSON: part of the key of kept answers."""
        ...

    @property
    def chat(self) -> bool:
        """Whether it is asked in conversations; false for a base model that continues text."""
        ...

    @property
    def scores(self) -> bool:
        """Whether it gives likelihoods."""
        ...

    @property
    def agent(self) -> str | None:
        """The format its tool calls are written in, where they stay in the text; else ``None``."""
        ...

    async def answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        """Generate an answer.

        Raises:
            FtError: this prompt can't be answered.
        """
        ...

    async def likelihoods(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Return for each question the likelihood of each of its continuations."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
