"""The completion tab: a model continues a text, without a chat format."""

from __future__ import annotations

from collections.abc import AsyncIterator

import gradio as gr

from ft_core.errors import FtError
from ft_ui.chat.answering import until_stopped
from ft_ui.pages.panel import QUICK, STREAM, Panel, session_of, to_person
from ft_ui.pages.sampling import sampling_controls, sampling_of


class CompletionTab:
    """The fields of the tab and what each event does; building it puts them on the page.

    Args:
        panel: what the page works with.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        words = panel.words
        voices = panel.voices()
        if not panel.answerer().chats:
            gr.Markdown(words("completion.base"))
        self.text = gr.Textbox(label=words("completion.text"), lines=6, elem_id="completion-text")
        with gr.Row():
            self.go = gr.Button(words("completion.run"), variant="primary", elem_id="complete")
            self.stop = gr.Button(words("chat.stop"), variant="stop")
        self.result = gr.Textbox(
            label=words("completion.result"), lines=8, elem_id="continuation", buttons=["copy"]
        )
        with gr.Accordion(words("chat.sampling"), open=False):
            self.voice = gr.Dropdown(voices, value=voices[0][1], label=words("chat.voice"))
            self.sampling = sampling_controls(panel.sampling, words)
        inputs = [self.text, self.voice, *self.sampling]
        self.go.click(self.complete, inputs, self.result, **STREAM)
        self.stop.click(self.stop_text, None, None, **QUICK)

    async def complete(
        self,
        text: str,
        voice: str,
        temperature: float,
        top_p: float,
        top_k: int,
        longest: int,
        penalty: float,
        seed: str,
        request: gr.Request,
    ) -> AsyncIterator[str]:
        """Continue the text."""
        written = ""
        yield written
        try:
            sampling = sampling_of((temperature, top_p, top_k, longest, penalty, seed))
            with self.panel.stops.watching(session_of(request)) as stopped:
                pieces = self.panel.answerer().complete(text, sampling, voice)
                async for piece in until_stopped(pieces, stopped):
                    written += piece.text
                    yield written
        except FtError as error:
            raise to_person(error) from None

    def stop_text(self, request: gr.Request) -> None:
        """End the text where it is."""
        self.panel.stops.stop(session_of(request))
