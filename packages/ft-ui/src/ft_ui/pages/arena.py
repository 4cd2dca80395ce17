"""The side-by-side tab: two voices of one loaded model answer the same message."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import gradio as gr

from ft_core.errors import FtError, UsageError
from ft_ui.chat.messages import Conversation
from ft_ui.chat.session import answered_by_two, joined
from ft_ui.chat.shown import shown_messages
from ft_ui.pages.chat import INTERVAL
from ft_ui.pages.panel import QUICK, STREAM, Panel, session_of, to_person
from ft_ui.pages.sampling import sampling_controls, sampling_of


class ArenaTab:
    """The fields of the tab and what each event does; building it puts them on the page.

    Args:
        panel: what the page works with.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.words = words = panel.words
        voices = panel.voices()
        gr.Markdown(words("arena.info"))
        self.state = gr.State(Conversation(system=panel.system), time_to_live=24 * 3600)
        self.voices: list[gr.Dropdown] = []
        self.displays: list[gr.Chatbot] = []
        with gr.Row():
            for side, voice in (("left", voices[0]), ("right", voices[-1])):
                with gr.Column(min_width=280):
                    self.voices.append(
                        gr.Dropdown(
                            voices,
                            value=voice[1],
                            label=words(f"arena.{side}"),
                            elem_id=f"{side}-voice",
                        )
                    )
                    self.displays.append(panel.conversation_view(words(f"arena.{side}"), side))
        with gr.Row():
            self.left = gr.Button(words("arena.left_better"), elem_id="left-better")
            self.right = gr.Button(words("arena.right_better"), elem_id="right-better")
        self.media = panel.file_field("arena-media")
        self.question = panel.question_box(words("arena.question"), "arena-question")
        with gr.Row():
            self.stop = gr.Button(words("chat.stop"), variant="stop", min_width=90)
            self.clear = gr.Button(words("chat.clear"), min_width=90)
        self.note = gr.Textbox(
            label=words("chat.note"), interactive=False, elem_id="arena-note", max_lines=2
        )
        with gr.Accordion(words("chat.sampling"), open=False):
            # The same seed on both sides: what differs comes from the models.
            self.sampling = sampling_controls(replace(panel.sampling, seed=0), words)
        self._connect()

    def _connect(self) -> None:
        outputs: list[Any] = [self.state, *self.displays, self.question, self.note]
        inputs: list[Any] = [self.state, self.question, self.media, *self.voices, *self.sampling]
        self.question.submit(self.ask, inputs, [*outputs, self.media], **STREAM)
        self.left.click(self.prefer_left, [self.state], outputs, **QUICK)
        self.right.click(self.prefer_right, [self.state], outputs, **QUICK)
        self.clear.click(self.begin, None, outputs, **QUICK)
        self.stop.click(self.stop_answers, None, None, **QUICK)

    async def ask(
        self,
        conversation: Conversation,
        question: str,
        files: list[str] | None,
        left: str,
        right: str,
        temperature: float,
        top_p: float,
        top_k: int,
        longest: int,
        penalty: float,
        seed: str,
        request: gr.Request,
    ) -> AsyncIterator[list[Any]]:
        """Have both answer."""
        shown, began = 0.0, False
        try:
            sampling = sampling_of((temperature, top_p, top_k, longest, penalty, seed))
            asked = conversation.stop().ask(question, self.panel.attached(files))
            sides = (asked, asked)
            began = True
            yield [*self.view(asked, sides, ""), None]
            with self.panel.stops.watching(session_of(request)) as stopped:
                answerer = self.panel.answerer()
                async for sides in answered_by_two(
                    asked, answerer, sampling, (left, right), stopped
                ):
                    if self.panel.stream and time.monotonic() - shown >= INTERVAL:
                        yield [*self.view(asked, sides), gr.skip()]
                        shown = time.monotonic()
            yield [*self.view(joined(*sides), sides), gr.skip()]
        except FtError as error:
            if began:  # nothing on this tab goes on from a question without answers
                before = (conversation, conversation)
                yield [*self.view(conversation, before, question), gr.skip()]
            raise to_person(error) from None

    def view(
        self,
        conversation: Conversation,
        sides: tuple[Conversation, Conversation],
        question: str | None = None,
        note: str = "",
    ) -> list[Any]:
        """Return new values of the tab's fields."""
        shown = [shown_messages(side, self.panel.shown_words())[0] for side in sides]
        return [conversation, *shown, gr.skip() if question is None else question, note]

    def prefer_left(self, conversation: Conversation) -> list[Any]:
        """Vote for the left answer and go on from it."""
        return self._prefer(conversation, 0)

    def prefer_right(self, conversation: Conversation) -> list[Any]:
        """Vote for the right answer and go on from it."""
        return self._prefer(conversation, 1)

    def _prefer(self, conversation: Conversation, side: int) -> list[Any]:
        file = self.panel.files.preferences
        try:
            voted = conversation.stop()
            if not voted.turns or len(voted.turns[-1].answers) < 2:
                raise UsageError("ask both something first")
            voted = voted.show(side).vote(len(voted.turns) - 1, chosen=side, rejected=1 - side)
            self.panel.files.add(file, voted.preference_rows())
        except FtError as error:
            raise to_person(error) from None
        return self.view(voted, (voted, voted), note=self.words("chat.voted", file=file))

    def begin(self, request: gr.Request) -> list[Any]:
        """Begin a new conversation."""
        self.panel.stops.stop(session_of(request))
        empty = Conversation(system=self.panel.system)
        return self.view(empty, (empty, empty))

    def stop_answers(self, request: gr.Request) -> None:
        """End both answers where they are."""
        self.panel.stops.stop(session_of(request))
