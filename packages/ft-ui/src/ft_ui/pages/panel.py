"""What the tabs of a chat page share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.engine import Sampling
from ft_core.errors import FtError, UsageError
from ft_ui.chat.answering import BASE, Answerer
from ft_ui.chat.collected import RowFiles
from ft_ui.chat.media import ENDINGS, Attached, attached
from ft_ui.chat.session import Stops
from ft_ui.chat.shown import ShownWords
from ft_ui.web.uploads import is_uploaded, upload_folder
from ft_ui.words import Words

STREAM: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": 32,
    "concurrency_id": "answers",
    "api_visibility": "private",
}
"""How Gradio runs what streams answers."""

QUICK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How Gradio runs what answers at once."""


@dataclass(frozen=True, slots=True)
class Panel:
    """What a chat page works with.

    Attributes:
        answerer: returns who is asked.
        sampling: what the fields begin with.
        files: where rows go.
        words: of the page.
        system: the system message the page begins with.
        stream: show answers while they are written.
        stops: what can be stopped.
    """

    answerer: Callable[[], Answerer]
    sampling: Sampling
    files: RowFiles
    words: Words
    system: str | None = None
    stream: bool = True
    stops: Stops = field(default_factory=Stops)

    def shown_words(self) -> ShownWords:
        """Return the words around answers."""
        keys = ("thinking", "stopped", "cut", "calls", "result")
        return ShownWords(*(self.words(f"chat.{key}") for key in keys))

    def voices(self) -> list[tuple[str, str]]:
        """Return who can be asked: label and name."""
        return [(self.words("chat.base") if v == BASE else v, v) for v in self.answerer().voices]

    def conversation_view(self, label: str, elem_id: str) -> gr.Chatbot:
        """Put a display of a conversation on the page that is being built."""
        return gr.Chatbot(
            label=label,
            height="55vh",
            buttons=["copy"],
            feedback_options=None,
            allow_tags=False,
            elem_id=elem_id,
            placeholder=self.words("chat.empty"),
        )

    def file_field(self, elem_id: str) -> gr.File:
        """Put the field for images, videos and audios on the page, which is seen where the model takes some."""
        kinds = sorted(self.answerer().media)
        return gr.File(
            label=self.words("chat.media"),
            file_count="multiple",
            file_types=[*kinds, *(ending for kind in kinds for ending in ENDINGS[kind])],
            height=110,
            visible=bool(kinds),
            elem_id=elem_id,
        )

    def attached(self, files: Sequence[str] | None) -> tuple[Attached, ...]:
        """Return what was uploaded with a message.

        Raises:
            UsageError: the model doesn't take it, or it wasn't uploaded here.
        """
        for path in files or ():
            if not is_uploaded(path, upload_folder()):
                raise UsageError(f"{Path(path).name} wasn't uploaded here; attach it again")
        return attached(files or (), self.answerer().media)

    def question_box(self, label: str, elem_id: str, *, autofocus: bool = False) -> gr.Textbox:
        """Put the field for a message on the page that is being built."""
        return gr.Textbox(
            label=label,
            placeholder=self.words("chat.placeholder"),
            lines=1,
            max_lines=8,
            autofocus=autofocus,
            submit_btn=self.words("chat.send"),
            elem_id=elem_id,
        )


def to_person(error: FtError) -> gr.Error:
    """Return an error as a message on the page."""
    return gr.Error(escape(str(error)), print_exception=False, duration=None)


def session_of(request: gr.Request) -> str:
    """Return what tells one open page from another."""
    return str(request.session_hash)
