"""The screens that need a server: deploying one, and talking to it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ft_core.engine import Sampling
from ft_core.errors import UsageError
from ft_ui.chat.collected import RowFiles
from ft_ui.pages.arena import ArenaTab
from ft_ui.pages.chat import ChatTab
from ft_ui.pages.completion import CompletionTab
from ft_ui.pages.panel import QUICK, Panel
from ft_ui.pages.studio.job_view import JobView, job_status
from ft_ui.pages.studio.studio import Studio, offered, telling
from ft_ui.studio.run_list import checkpoints_in
from ft_ui.studio.servers import (
    Server,
    ServerAnswerer,
    curl_snippet,
    metrics_of,
    openai_snippet,
    server_of,
)


class ServerInfo:
    """How to ask the server of a job, and its figures; building it puts it on the page.

    Args:
        studio: what the screens share.
        view: shows the job.
    """

    def __init__(self, studio: Studio, view: JobView) -> None:
        self.studio, words = studio, studio.words
        self.curl = gr.Textbox(
            label="curl", lines=3, interactive=False, buttons=["copy"], elem_id="deploy-curl"
        )
        self.client = gr.Textbox(
            label="Python", lines=7, interactive=False, buttons=["copy"], elem_id="deploy-python"
        )
        self.ask = gr.Button(words("deploy.metrics"), size="sm", elem_id="deploy-ask-metrics")
        self.metrics = gr.Textbox(
            label=words("deploy.metrics"),
            lines=4,
            max_lines=20,
            interactive=False,
            elem_id="deploy-metrics",
        )
        shown = [self.curl, self.client]
        view.timer.tick(self.refresh, [view.job], shown, **QUICK)
        view.job.change(self.refresh, [view.job], shown, **QUICK)
        self.ask.click(telling(self.figures), [view.job], self.metrics, **QUICK)

    def refresh(self, name: str | None) -> list[str]:
        """Return the snippets once the server is ready."""
        server = self._server(name)
        if server is None:
            waiting = self.studio.words("deploy.waiting")
            return [waiting, waiting]
        return [curl_snippet(server), openai_snippet(server)]

    def figures(self, name: str | None) -> str:
        """Return the server's figures."""
        server = self._server(name)
        if server is None:
            raise UsageError(self.studio.words("deploy.waiting"))
        return metrics_of(server)

    def _server(self, name: str | None) -> Server | None:
        return None if not name else server_of(self.studio.jobs.get(name))


class TalkScreen:
    """Loading a checkpoint once, and chatting with it beside its base; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
    """

    def __init__(self, studio: Studio, page: gr.Blocks) -> None:
        self.studio, words = studio, studio.words
        self.timer = studio.timer("talk")
        self.ready = gr.State("")
        gr.Markdown(words("talk.info"))
        with gr.Row():
            self.checkpoint = gr.Dropdown(
                checkpoints_in(studio.workplace),
                value=None,
                label=words("talk.checkpoint"),
                elem_id="talk-checkpoint",
                scale=2,
            )
            self.load = gr.Button(
                words("talk.load"), variant="primary", elem_id="talk-load", min_width=120
            )
            self.job = gr.Dropdown([], label=words("talk.server"), elem_id="talk-server", scale=2)
        self.status = gr.Markdown("", elem_id="talk-status")
        shown = [self.checkpoint, self.job, self.status, self.ready]
        inputs = [self.checkpoint, self.job, self.ready]
        page.load(self.refresh, inputs, shown, **QUICK)
        self.timer.tick(self.refresh, inputs, shown, **QUICK)
        self.job.input(self.refresh, inputs, shown, **QUICK)
        self.load.click(telling(self.start), [self.checkpoint], [self.job, self.status], **QUICK)
        gr.render(inputs=[self.ready], triggers=[self.ready.change], show_progress="hidden")(
            self.draw
        )

    def refresh(self, checkpoint: str | None, job: str | None, ready: str) -> list[Any]:
        """Return the servers there are; the page of one is drawn once it is ready."""
        jobs = [
            item
            for item in self.studio.jobs.all()
            if item.command == "deploy"
            and (item.status in ("running", "starting") or item.name == job)
        ]
        chosen = next((item for item in jobs if item.name == job), jobs[0] if jobs else None)
        known = checkpoints_in(self.studio.workplace)
        server = None if chosen is None else server_of(chosen)
        now = "" if server is None else server.job.name
        return [
            offered(known, checkpoint),
            offered([item.name for item in jobs], job),
            "" if chosen is None else job_status(chosen, chosen.log(), self.studio.words),
            gr.skip() if now == ready else now,
        ]

    def start(self, checkpoint: str | None) -> list[Any]:
        """Load a checkpoint by ``ft deploy`` on a free port of this machine."""
        if not checkpoint:
            raise UsageError(self.studio.words("talk.choose"))
        self.studio.workplace.inside(checkpoint)
        job = self.studio.jobs.start(["deploy", "--ckpt_dir", checkpoint, "--port", "0"])
        return [gr.Dropdown(choices=[job.name], value=job.name), self.studio.words("talk.loading")]

    def draw(self, ready: str) -> None:
        """Put the chat with a server on the page."""
        server = server_of(self.studio.jobs.get(ready)) if ready else None
        if server is None:
            return
        answerer = ServerAnswerer(server)
        panel = Panel(
            lambda: answerer,
            Sampling(max_new_tokens=256, temperature=0.3, top_k=20, top_p=0.7),
            RowFiles(self.studio.workplace.root / "chat_rows"),
            self.studio.words,
        )
        with gr.Tabs():
            with gr.Tab(self.studio.words("chat.tab")):
                ChatTab(panel)
            if len(answerer.voices) > 1:
                with gr.Tab(self.studio.words("arena.tab")):
                    ArenaTab(panel)
            with gr.Tab(self.studio.words("completion.tab")):
                CompletionTab(panel)
