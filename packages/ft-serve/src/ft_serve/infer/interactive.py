"""Chatting in the terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ft_core.agents import AgentFormat, ParsedAnswer, agent_of, parse, read_tools
from ft_core.agents.formats import arguments_of
from ft_core.engine import Engine, GenerationRequest, Sampling
from ft_core.errors import FtError, UsageError
from ft_core.examples import Example, Message, ToolCall
from ft_core.templates.template import Template
from ft_serve.infer.markdown import MarkdownWriter
from ft_serve.infer.results import AnswerFile, answer_row

HELP = (
    "Commands: exit (or quit), clear forgets the conversation, reset-system asks for a new system message, "
    "multi-line takes questions of several lines that end with #, single-line goes back, "
    "/tools FILE lets the model call the functions of a JSON file (you give their results), /tools none ends that, "
    "/adapter NAME and /model NAME change who answers, /markdown and /plain how answers look. "
    "Ctrl-C stops an answer."
)

Read = Callable[[str], str]
Write = Callable[[str], None]


def write_now(text: str) -> None:
    """Print without a line break, at once."""
    print(text, end="", flush=True)


@dataclass(frozen=True, slots=True)
class Partner:
    """Who answers.

    Attributes:
        engine: generates.
        template: the chat format; one of one round only gets each question alone.
        adapter: the engine's adapter that answers; ``None`` is the model without.
    """

    engine: Engine
    template: Template
    adapter: str | None = None


@dataclass(slots=True)
class Chat:
    """A conversation between a person and an engine.

    Attributes:
        partner: who answers.
        sampling: how to choose tokens; stop strings come from the partner's template.
        answers: each question and answer is appended to it.
        system: the system message; ``None`` takes the format's own.
        stream: show an answer while it is generated.
        read, write: the terminal; ``read`` raises ``EOFError`` at its end.
        open_model: loads another model by name or directory; ``None`` where there is only one.
        markdown: makes what formats an answer; ``None`` shows it as it is.
    """

    partner: Partner
    sampling: Sampling
    answers: AnswerFile
    system: str | None = None
    stream: bool = True
    read: Read = input
    write: Write = write_now
    open_model: Callable[[str], Partner] | None = None
    markdown: Callable[[], MarkdownWriter] | None = None
    formatted: bool = True
    history: list[Message] = field(default_factory=list)
    tools: tuple[Mapping[str, Any], ...] = ()
    multi_line: bool = False

    def run(self) -> None:
        """Talk until ``exit`` or the end of the input."""
        self.write(f"{HELP}\n")
        while True:
            try:
                text = self._question()
                if text in ("exit", "quit"):
                    return
                if not self._command(text) and text.strip():
                    self._ask(text)
            except EOFError:
                self.write("\n")
                return
            except KeyboardInterrupt:
                self.write("\n(type exit to leave)\n")
            except FtError as error:
                self.write(f"error: {error}\n")

    def _question(self) -> str:
        if not self.multi_line:
            return self.read("<<< ")
        lines = [self.read("<<<[M] ")]
        first = lines[0].rstrip("#")
        if first in _WORDS or first.partition(" ")[0] in _SLASHES:
            return first
        while not lines[-1].endswith("#"):
            lines.append(self.read("... "))
        return "\n".join(lines)[:-1]

    def _command(self, text: str) -> bool:
        """Do what a command says; false if the text is a question."""
        if text == "clear":
            self.history.clear()
        elif text == "reset-system":
            self.system = self.read("<<<[S] ")
            self.history.clear()
        elif text in ("multi-line", "single-line"):
            self.multi_line = text == "multi-line"
        else:
            return self._slash(*text.partition(" ")[::2])
        return True

    def _slash(self, name: str, value: str) -> bool:
        value = value.strip()
        match name:
            case "/help":
                self.write(f"{HELP}\n")
            case "/tools":
                self.tools = () if value in ("", "none") else _read_tools(value)
                names = ", ".join(str(tool.name) for tool in read_tools(self.tools))
                self.write(f"tools: {names or 'none'}\n")
            case "/adapter":
                self._choose_adapter(value)
            case "/model":
                self._choose_model(value)
            case "/markdown" | "/plain":
                self.formatted = name == "/markdown"
            case _:
                return False
        return True

    def _choose_adapter(self, name: str) -> None:
        known = self.partner.engine.adapters
        if name and name != "none" and name not in known:
            raise UsageError(f"adapter {name}: there are {', '.join(known) or 'none'}")
        if name:
            self.partner = replace(self.partner, adapter=None if name == "none" else name)
        others = ", ".join(known) or "none"
        self.write(f"adapter: {self.partner.adapter or 'none'} (loaded: {others})\n")

    def _choose_model(self, name: str) -> None:
        if self.open_model is None or not name:
            raise UsageError("/model NAME: give a name of `ft list models`, or a directory")
        self.partner = self.open_model(name)
        self.history.clear()
        self.write(f"model: {name}\n")

    def _ask(self, text: str) -> None:
        past = list(self.history) if self.partner.template.multi_turn else []
        said = [*past, Message("user", text)]
        while True:
            answer, stopped = self._answer(said)
            parsed = parse(answer, self._agent()) if self.tools else ParsedAnswer(answer)
            if stopped or not parsed.tool_calls:
                break
            said.append(Message("assistant", parsed.content, parsed.tool_calls))
            said += [self._result(call) for call in parsed.tool_calls]
        opening = [] if self.system is None else [Message("system", self.system)]
        self.answers.write(answer_row(Example(messages=(*opening, *said)), answer))
        self.history = [*said, Message("assistant", answer)]

    def _agent(self) -> AgentFormat:
        return agent_of(self.partner.template.tools_prompt)

    def _result(self, call: ToolCall) -> Message:
        result = self.read(f"<<<[T] result of {call.name}({arguments_of(call)}): ")
        return Message("tool", result, tool_call_id=call.id, name=call.name)

    def _answer(self, said: Sequence[Message]) -> tuple[str, bool]:
        """Return the answer and whether the person stopped it."""
        opening = [] if self.system is None else [Message("system", self.system)]
        writer = self.markdown() if self.markdown is not None and self.formatted else None
        show = self.write if writer is None else writer.push
        answer = _Answer()
        try:
            asyncio.run(self._generate((*opening, *said), answer, show))
        except KeyboardInterrupt:
            answer.stopped = True
        if not self.stream:
            show(answer.text)
        if writer is not None:
            writer.finish()
        self.write(" (stopped)\n" if answer.stopped else "\n" if writer is None else "")
        return answer.text, answer.stopped

    async def _generate(self, messages: tuple[Message, ...], answer: _Answer, show: Write) -> None:
        template = self.partner.template
        pauses = self._agent().stop if self.tools else ()
        request = GenerationRequest(
            template.encode_prompt(messages, self.tools),
            replace(self.sampling, stop=(*template.stop_strings, *pauses)),
            self.partner.adapter,
        )
        async for event in self.partner.engine.generate(request):
            answer.text += event.text
            if self.stream:
                show(event.text)


_WORDS = ("exit", "quit", "clear", "reset-system", "multi-line", "single-line")
_SLASHES = ("/help", "/tools", "/adapter", "/model", "/markdown", "/plain")


@dataclass(slots=True)
class _Answer:
    """The text so far; it outlives an interrupted generation."""

    text: str = ""
    stopped: bool = False


def _read_tools(file: str) -> tuple[Mapping[str, Any], ...]:
    try:
        tools = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"/tools {file}: can't be read as JSON: {error}") from error
    read_tools(tools)
    return tuple(tools)
