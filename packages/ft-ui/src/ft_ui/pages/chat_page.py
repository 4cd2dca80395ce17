"""The page of ``ft app-ui``."""

from __future__ import annotations

import gradio as gr

from ft_ui.pages.arena import ArenaTab
from ft_ui.pages.chat import ChatTab
from ft_ui.pages.completion import CompletionTab
from ft_ui.pages.panel import Panel


def chat_page(panel: Panel, name: str) -> gr.Blocks:
    """Build the page.

    Args:
        panel: what it works with.
        name: of the model.
    """
    answerer, words = panel.answerer(), panel.words
    with gr.Blocks(
        title=words("chat.title", name=name),
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as page:
        gr.Markdown(f"# {words('chat.title', name=name)}")
        with gr.Tabs(selected="chat" if answerer.chats else "completion"):
            with gr.Tab(words("chat.tab"), id="chat"):
                ChatTab(panel)
            if len(answerer.voices) > 1:
                with gr.Tab(words("arena.tab"), id="arena"):
                    ArenaTab(panel)
            with gr.Tab(words("completion.tab"), id="completion"):
                CompletionTab(panel)
    page.queue(max_size=256, api_open=False)
    return page
