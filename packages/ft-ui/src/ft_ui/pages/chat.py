"""The chat tab: one conversation with one model."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import gradio as gr

from ft_core.agents import read_tools
from ft_core.errors import FtError, UsageError
from ft_ui.chat.messages import Conversation
from ft_ui.chat.session import Speed, answered
from ft_ui.chat.shown import shown_messages
from ft_ui.pages.panel import QUICK, STREAM, Panel, session_of, to_person
from ft_ui.pages.sampling import sampling_controls, sampling_of

INTERVAL = 0.05
"""Seconds between two pictures of a growing answer."""


class ChatTab:
    """The fields of the tab and what each event does; building it puts them on the page.

    Args:
        panel: what the page works with.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.words = words = panel.words
        self.state = gr.State(Conversation(system=panel.system), time_to_live=24 * 3600)
        self.chatbot = panel.conversation_view(words("chat.conversation"), "conversation")
        self.chatbot.editable = "user"
        self.media = panel.file_field("media")
        self.question = panel.question_box(words("chat.question"), "question", autofocus=True)
        with gr.Row():
            self.stop = self._button("stop", variant="stop")
            self.retry = self._button("retry")
            self.undo = self._button("undo")
            self.clear = self._button("clear")
            self.save = self._button("save")
        self.answers = gr.Radio([], label=words("chat.answers"), visible=False, elem_id="answers")
        self.prefer = self._button("prefer", visible=False)
        self.note = gr.Textbox(
            label=words("chat.note"), interactive=False, elem_id="note", max_lines=2
        )
        with gr.Accordion(words("chat.sampling"), open=False, elem_id="sampling"):
            voices = panel.voices()
            self.voice = gr.Dropdown(
                voices, value=voices[0][1], label=words("chat.voice"), elem_id="voice"
            )
            self.system = gr.Textbox(
                panel.system or "",
                label=words("chat.system"),
                info=words("chat.system_info"),
                lines=2,
                elem_id="system",
            )
            self.tools = gr.Textbox(
                "",
                label=words("chat.tools"),
                info=words("chat.tools_info"),
                lines=2,
                max_lines=12,
                visible=panel.answerer().takes_tools,
                elem_id="tools",
            )
            self.sampling = sampling_controls(panel.sampling, words)
        self._connect()

    def _button(self, name: str, **how: Any) -> gr.Button:
        label = self.words(f"chat.{name}")
        return gr.Button(label, size="sm", min_width=90, elem_id=name, **how)

    def _connect(self) -> None:
        outputs: list[Any] = [self.state, self.chatbot, self.question, self.answers]
        outputs += [self.prefer, self.note]
        settings = [self.voice, *self.sampling]
        asked = [self.state, self.question, self.media, *settings]
        self.question.submit(self.ask, asked, [*outputs, self.media], **STREAM)
        self.retry.click(self.again, [self.state, *settings], outputs, **STREAM)
        self.chatbot.edit(self.edit, [self.state, *settings], outputs, **STREAM)
        self.undo.click(self.take_back, [self.state], outputs, **QUICK)
        opening: list[Any] = [self.system, self.tools]
        self.clear.click(self.begin, opening, outputs, **QUICK)
        self.chatbot.clear(self.begin, opening, outputs, **QUICK)
        self.system.change(self.begin, opening, outputs, **QUICK)
        self.tools.blur(self.begin_with_tools, [self.state, *opening], outputs, **QUICK)
        self.answers.input(self.choose, [self.state, self.answers], outputs, **QUICK)
        self.prefer.click(self.vote, [self.state], outputs, **QUICK)
        self.save.click(self.save_row, [self.state], self.note, **QUICK)
        self.stop.click(self.stop_answer, None, None, **QUICK)

    async def ask(
        self,
        conversation: Conversation,
        question: str,
        files: list[str] | None,
        voice: str,
        temperature: float,
        top_p: float,
        top_k: int,
        longest: int,
        penalty: float,
        seed: str,
        request: gr.Request,
    ) -> AsyncIterator[list[Any]]:
        """Answer a new message."""
        settings = (temperature, top_p, top_k, longest, penalty, seed)
        try:
            asked = conversation.stop().ask(question, self.panel.attached(files))
            # The field is emptied once: what is attached while the answer comes is for the next message.
            field: Any = None
            async for view in self._answer(asked, voice, settings, request):
                yield [*view, field]
                field = gr.skip()
        except FtError as error:
            raise to_person(error) from None

    async def again(
        self,
        conversation: Conversation,
        voice: str,
        temperature: float,
        top_p: float,
        top_k: int,
        longest: int,
        penalty: float,
        seed: str,
        request: gr.Request,
    ) -> AsyncIterator[list[Any]]:
        """Give another answer to the last message."""
        settings = (temperature, top_p, top_k, longest, penalty, seed)
        try:
            async for view in self._answer(conversation.stop().retry(), voice, settings, request):
                yield view
        except FtError as error:
            raise to_person(error) from None

    async def edit(
        self,
        conversation: Conversation,
        voice: str,
        temperature: float,
        top_p: float,
        top_k: int,
        longest: int,
        penalty: float,
        seed: str,
        request: gr.Request,
        edited: gr.EditData,
    ) -> AsyncIterator[list[Any]]:
        """Answer an earlier message that was changed; what came after it goes."""
        settings = (temperature, top_p, top_k, longest, penalty, seed)
        try:
            quiet = conversation.stop()
            _, turns = shown_messages(quiet)
            place = edited.index if isinstance(edited.index, int) else edited.index[0]
            if not 0 <= place < len(turns):
                raise UsageError("this message is gone; load the page again")
            changed = quiet.edit(turns[place], _text_of(edited.value))
            async for view in self._answer(changed, voice, settings, request):
                yield view
        except FtError as error:
            raise to_person(error) from None

    async def _answer(
        self,
        conversation: Conversation,
        voice: str,
        settings: tuple[Any, ...],
        request: gr.Request,
    ) -> AsyncIterator[list[Any]]:
        sampling, speed, shown = sampling_of(settings), Speed(), 0.0
        yield self.view(conversation, "")
        with self.panel.stops.watching(session_of(request)) as stopped:
            answerer = self.panel.answerer()
            asked = conversation
            async for conversation in answered(asked, answerer, sampling, voice, stopped, speed):
                if self.panel.stream and time.monotonic() - shown >= INTERVAL:
                    yield self.view(conversation)
                    shown = time.monotonic()
        note = self.words("chat.speed", tokens=speed.tokens, rate=speed.rate)
        yield self.view(conversation, note=note)

    def view(
        self, conversation: Conversation, question: str | None = None, note: str = ""
    ) -> list[Any]:
        """Return new values of the tab's fields."""
        messages, _ = shown_messages(conversation, self.panel.shown_words())
        last = conversation.turns[-1] if conversation.turns else None
        several = last is not None and len(last.answers) > 1 and not last.streaming
        numbers = range(len(last.answers)) if last is not None and several else ()
        if names := ", ".join(call.name for call in conversation.awaited):
            note = self.words("chat.results_wanted", names=names)
        return [
            conversation,
            messages,
            gr.skip() if question is None else question,
            gr.Radio(
                choices=[(self.words("chat.answer", number=n + 1), n) for n in numbers],
                value=last.shown if last is not None and several else None,
                visible=several,
            ),
            gr.Button(visible=several),
            note,
        ]

    def take_back(self, conversation: Conversation, request: gr.Request) -> list[Any]:
        """Take the last message back into the field."""
        self.panel.stops.stop(session_of(request))
        try:
            earlier, question = conversation.stop().undo()
        except FtError as error:
            raise to_person(error) from None
        return self.view(earlier, question)

    def begin(self, system: str, tools: str, request: gr.Request) -> list[Any]:
        """Begin a new conversation."""
        self.panel.stops.stop(session_of(request))
        try:
            given = tools_of(tools)
        except FtError as error:
            raise to_person(error) from None
        return self.view(Conversation(system=system if system.strip() else None, tools=given))

    def begin_with_tools(
        self, conversation: Conversation, system: str, tools: str, request: gr.Request
    ) -> list[Any]:
        """Begin a new conversation if the functions are other ones."""
        try:
            changed = tools_of(tools) != conversation.tools
        except FtError as error:
            raise to_person(error) from None
        return self.begin(system, tools, request) if changed else self.view(conversation)

    def choose(self, conversation: Conversation, answer: int) -> list[Any]:
        """Go on from another answer."""
        try:
            return self.view(conversation.stop().show(answer))
        except FtError as error:
            raise to_person(error) from None

    def vote(self, conversation: Conversation) -> list[Any]:
        """Prefer the shown answer to the others, and save that."""
        try:
            voted = conversation.stop()
            place = len(voted.turns) - 1
            turn = voted.turns[place]
            for other in range(len(turn.answers)):
                if turn.answers[other].text not in ("", turn.answer.text):
                    voted = voted.vote(place, chosen=turn.shown, rejected=other)
            rows = voted.preference_rows()
            if voted is conversation or not rows:
                raise UsageError("the answers are the same; there is nothing to prefer")
            file = self.panel.files.preferences
            self.panel.files.add(file, rows)
        except FtError as error:
            raise to_person(error) from None
        return self.view(voted, note=self.words("chat.voted", file=file))

    def save_row(self, conversation: Conversation) -> str:
        """Save the conversation as a row to train on."""
        file = self.panel.files.conversations
        try:
            self.panel.files.add(file, [conversation.stop().training_row()])
        except FtError as error:
            raise to_person(error) from None
        return self.words("chat.saved", file=file)

    def stop_answer(self, request: gr.Request) -> None:
        """End the answer where it is."""
        self.panel.stops.stop(session_of(request))


def tools_of(text: str) -> tuple[Mapping[str, Any], ...]:
    """Return the functions that a field describes; an empty one describes none.

    Raises:
        UsageError: it isn't a JSON list of functions in OpenAI's form.
    """
    if not text.strip():
        return ()
    try:
        tools = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"the tools aren't JSON: {error}; give a list of functions") from error
    if not isinstance(tools, list):
        raise UsageError("the tools must be a JSON list of functions in OpenAI's form")
    read_tools(tools)
    return tuple(tools)


def _text_of(value: Any) -> str:
    """Return the text of an edited message, whose brackets were written as characters."""
    if isinstance(value, list):
        return "".join(_text_of(part) for part in value)
    text = value.get("text", "") if isinstance(value, dict) else str(value)
    return str(text).replace("&lt;", "<").replace("!\\[", "![")
