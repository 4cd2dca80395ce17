"""The page of ``ft web-ui``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ft_ui.pages.panel import QUICK
from ft_ui.pages.studio.data import DataScreen
from ft_ui.pages.studio.deploy import ServerInfo, TalkScreen
from ft_ui.pages.studio.form import CommandForm
from ft_ui.pages.studio.job_view import JobView
from ft_ui.pages.studio.live import LiveScreen
from ft_ui.pages.studio.measured import MeasuredTable
from ft_ui.pages.studio.runs import RunsScreen
from ft_ui.pages.studio.studio import Studio, telling
from ft_ui.studio.run_list import get_run

TRAINING = ("sft", "pt", "rlhf")


def studio_page(studio: Studio) -> gr.Blocks:
    """Build the page; screens whose commands aren't installed are left out."""
    words, program = studio.words, studio.program
    screens: dict[str, gr.Tab] = {}
    with gr.Blocks(
        title=words("studio.title"),
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as page:
        gr.Markdown(f"# {words('studio.title')}")
        with gr.Tabs(selected="runs", elem_id="screens") as tabs:
            with _screen(screens, "runs", words("runs.tab")):
                runs = RunsScreen(studio, page)
            if any(map(program.has, TRAINING)):
                with _screen(screens, "new", words("new.tab")):
                    form = _command_screen(studio, page, TRAINING, "new")
                _clone(studio, runs, form, tabs)
            with _screen(screens, "live", words("live.tab")):
                LiveScreen(studio, page)
            if program.has("data") and program.has("preview"):
                with _screen(screens, "data", words("data.tab")):
                    DataScreen(studio, page)
            if program.has("deploy"):
                with _screen(screens, "talk", words("talk.tab")):
                    TalkScreen(studio, page)
            if program.has("eval"):
                with _screen(screens, "eval", words("eval.tab")):
                    _command_screen(studio, page, ("eval",), "eval")
            if program.has("export") or program.has("merge-lora"):
                with _screen(screens, "export", words("export.tab")):
                    _command_screen(studio, page, ("export", "merge-lora"), "export")
            if program.has("deploy"):
                with _screen(screens, "deploy", words("deploy.tab")):
                    _command_screen(studio, page, ("deploy",), "deploy")
        _tick_in_view(studio, page, screens)
    page.queue(max_size=256, api_open=False)
    return page


def _screen(screens: dict[str, gr.Tab], name: str, label: str) -> gr.Tab:
    screens[name] = gr.Tab(label, id=name, elem_id=f"screen-{name}")
    return screens[name]


def _command_screen(
    studio: Studio, page: gr.Blocks, commands: Sequence[str], screen: str
) -> CommandForm:
    """A form, and what was started with it."""
    gr.Markdown(studio.words(f"{screen}.info"))
    form = CommandForm(studio, page, commands, screen)
    gr.Markdown(f"### {studio.words('job.title')}")
    view = JobView(studio, page, commands, screen)
    form.on_start(view.shown, view.show)
    if screen == "deploy":
        ServerInfo(studio, view)
    if screen == "eval":
        MeasuredTable(studio, page, view)
    return form


def _clone(studio: Studio, runs: RunsScreen, form: CommandForm, tabs: gr.Tabs) -> None:
    @telling
    def cloned(name: str | None) -> list[Any]:
        run = get_run(studio.workplace, name or "")
        command = str(run.record.data["command"])
        words = list(map(str, run.record.data["argv"]))[1:]
        return [
            gr.Tabs(selected="new"),
            *form.fill(command, studio.form(command).from_words(words)),
        ]

    runs.clone.click(cloned, [runs.run], [tabs, *form.filled], **QUICK)


def _tick_in_view(studio: Studio, page: gr.Blocks, screens: dict[str, gr.Tab]) -> None:
    """Let the timer of the screen in view tick and no other."""
    names = list(studio.timers)
    timers = [studio.timers[name] for name in names]

    def only(screen: str) -> list[Any]:
        return [gr.Timer(active=name == screen) for name in names]

    for name, tab in screens.items():
        tab.select(lambda name=name: only(name), None, timers, **QUICK)
    page.load(lambda: only("runs"), None, timers, **QUICK)
