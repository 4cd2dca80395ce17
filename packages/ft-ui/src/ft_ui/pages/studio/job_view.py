"""What was started from a screen: its log, how it ended and what that means, and stopping it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ft_core.errors import UsageError
from ft_ui.chat.shown import harmless
from ft_ui.pages.panel import QUICK
from ft_ui.pages.studio.studio import Studio, offered, telling
from ft_ui.studio.advice import explain
from ft_ui.studio.jobs import Job, send_stop
from ft_ui.words import Words


class JobView:
    """The jobs of some commands; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
        commands: the commands whose jobs are shown.
        screen: names the parts on the page; its timer refreshes them.
    """

    def __init__(
        self, studio: Studio, page: gr.Blocks, commands: Sequence[str], screen: str
    ) -> None:
        self.studio, self.commands, words = studio, tuple(commands), studio.words
        self.timer = studio.timer(screen)
        self.job = gr.Dropdown(
            self.names(), label=words("job.started"), value=None, elem_id=f"{screen}-job"
        )
        self.status = gr.Markdown("", elem_id=f"{screen}-status")
        with gr.Row():
            self.stop = gr.Button(words("job.stop"), elem_id=f"{screen}-stop", min_width=120)
            self.force = gr.Button(
                words("job.force"), variant="stop", elem_id=f"{screen}-force", min_width=120
            )
        self.log = gr.Textbox(
            label=words("job.log"), lines=8, max_lines=20, interactive=False, autoscroll=True,
            elem_id=f"{screen}-log", buttons=["copy"],
        )  # fmt: skip
        shown = [self.job, self.status, self.log]
        page.load(self.refresh, [self.job], shown, **QUICK)
        self.timer.tick(self.refresh, [self.job], shown, **QUICK)
        self.job.input(self.refresh, [self.job], shown, **QUICK)
        self.stop.click(telling(self.ask_to_stop), [self.job], shown, **QUICK)
        self.force.click(telling(self.end), [self.job], shown, **QUICK)

    def names(self) -> list[tuple[str, str]]:
        """Return the jobs to choose from."""
        return [
            (f"{job.name} ({self.studio.words(f'status.{job.status}')})", job.name)
            for job in self.studio.jobs.all()
            if job.command in self.commands
        ]

    def show(self, name: str) -> list[Any]:
        """Return new values for ``shown``: this job is in view."""
        return [gr.Dropdown(choices=self.names(), value=name), *self.refresh(name)[1:]]

    @property
    def shown(self) -> list[Any]:
        """What ``show`` gives values for."""
        return [self.job, self.status, self.log]

    def refresh(self, name: str | None) -> list[Any]:
        """Return the present state; without a name the newest job's."""
        names = self.names()
        known = [value for _, value in names]
        chosen = name if name in known else next(iter(known), None)
        if chosen is None:
            return [gr.Dropdown(choices=[], value=None), self.studio.words("job.none"), ""]
        job = self.studio.jobs.get(chosen)
        log = job.log()
        return [
            offered(names, name),
            job_status(job, log, self.studio.words),
            log,
        ]

    def ask_to_stop(self, name: str | None) -> list[Any]:
        """Ask the job to end; training saves a checkpoint first."""
        self._send(name, force=False)
        return self.refresh(name)

    def end(self, name: str | None) -> list[Any]:
        """End the job at once."""
        self._send(name, force=True)
        return self.refresh(name)

    def _send(self, name: str | None, *, force: bool) -> None:
        if name is None:
            raise UsageError(self.studio.words("job.none"))
        job = self.studio.jobs.get(name)
        send_stop(job.data.get("pid"), job.data.get("pid_start"), force=force)


def job_status(job: Job, log: str, words: Words) -> str:
    """Return how a job goes, with its error explained."""
    lines = [
        f"**{words(f'status.{job.status}')}** · `ft {job.command}` · {job.data['created'][:19]}"
    ]
    if job.status == "failed" and (advice := explain(log)) is not None:
        if advice.kind is not None:
            lines.append(f"⚠ {words(f'advice.{advice.kind}')}")
        lines.append(harmless(advice.lines))
    return "\n\n".join(lines)
