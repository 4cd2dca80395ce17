"""The screen of all runs: what ran and runs, compared, and what can be done with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.errors import UsageError
from ft_ui.pages.panel import QUICK
from ft_ui.pages.studio.curves import curve_rows
from ft_ui.pages.studio.studio import Studio, offered, telling
from ft_ui.studio.forms import check_words, command_line
from ft_ui.studio.metrics import CURVES, smoothed
from ft_ui.studio.run_list import (
    RunView,
    delete_run,
    find_runs_in,
    get_run,
    resume_words,
    stop_run,
)

COLUMNS = ("status", "run", "command", "model", "data", "step", "loss", "eval_loss", "created")


class RunsScreen:
    """The screen; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
    """

    def __init__(self, studio: Studio, page: gr.Blocks) -> None:
        self.studio, words = studio, studio.words
        self.seen = gr.State("")
        self.timer = studio.timer("runs", 3.0)
        gr.Markdown(words("runs.info", directory=f"`{studio.workplace.root}`"))
        self.table = gr.Dataframe(
            headers=[words(f"runs.{name}") for name in COLUMNS],
            datatype="str",
            interactive=False,
            wrap=True,
            show_search="filter",
            max_height=360,
            label=words("runs.table"),
            elem_id="runs-table",
        )
        self.run = gr.Dropdown([], label=words("runs.chosen"), elem_id="runs-run")
        with gr.Row():
            self.stop = self._button("stop")
            self.force = self._button("force", variant="stop")
            self.resume = self._button("resume")
            self.clone = self._button("clone")
        with gr.Accordion(words("runs.delete"), open=False, elem_id="runs-delete-part"):
            self.sure = gr.Textbox(
                label=words("runs.sure"), info=words("runs.sure_info"), elem_id="runs-sure"
            )
            self.delete = self._button("delete", variant="stop")
        self.note = gr.Textbox(label=words("runs.note"), interactive=False, elem_id="runs-note")
        gr.Markdown(f"### {words('runs.compare')}")
        with gr.Row():
            self.compared = gr.Dropdown(
                [], multiselect=True, label=words("runs.compared"), elem_id="runs-compared"
            )
            self.curve = gr.Dropdown(
                [(words(f"curve.{name}"), name) for name in CURVES],
                value="loss",
                label=words("runs.curve"),
                elem_id="runs-curve",
            )
            self.smooth = gr.Slider(0, 0.95, 0, step=0.05, label=words("runs.smooth"))
        self.plot = gr.LinePlot(
            value=curve_rows([], "run"), x="step", y="value", color="run", label=words("runs.compare"), height=300,
            elem_id="runs-plot",
        )  # fmt: skip
        self._connect(page)

    def _button(self, name: str, **how: Any) -> gr.Button:
        label = self.studio.words(f"runs.{name}")
        return gr.Button(label, size="sm", min_width=120, elem_id=f"runs-{name}", **how)

    def _connect(self, page: gr.Blocks) -> None:
        shown = [self.seen, self.table, self.run, self.compared]
        page.load(self.refresh, [self.seen, self.run, self.compared], shown, **QUICK)
        self.timer.tick(self.refresh, [self.seen, self.run, self.compared], shown, **QUICK)
        self.table.select(self.choose, None, self.run, **QUICK)
        acting = [self.note, *shown]
        for button, action in (
            (self.stop, self.ask_to_stop),
            (self.force, self.end),
            (self.resume, self.go_on),
        ):
            button.click(telling(action), [self.run, self.compared], acting, **QUICK)
        self.delete.click(
            telling(self.remove),
            [self.run, self.compared, self.sure],
            [self.sure, *acting],
            **QUICK,
        )
        drawn = [self.compared, self.curve, self.smooth]
        for part in drawn:
            part.change(self.draw, drawn, self.plot, **QUICK)
        self.seen.change(self.draw, drawn, self.plot, **QUICK)

    def refresh(self, seen: str, chosen: str | None, compared: list[str] | None) -> list[Any]:
        """Return the runs as they are now; nothing where nothing has changed."""
        runs = find_runs_in(self.studio.workplace)
        rows = [self._row(run) for run in runs]
        now = repr(rows)
        if now == seen:
            return [gr.skip()] * 4
        names = [run.name for run in runs]
        kept = [name for name in compared or () if name in names]
        return [
            now,
            rows,
            offered(names, chosen),
            gr.Dropdown(choices=names) if kept else gr.Dropdown(choices=names, value=names[:2]),
        ]

    def _row(self, run: RunView) -> list[str]:
        progress = run.progress()
        steps = f"{progress.step}/{progress.steps}" if progress.steps else str(progress.step)
        return [
            self.studio.words(f"status.{run.status}"),
            run.name,
            str(run.record.data["command"]),
            Path(run.model).name,
            run.data,
            steps,
            number(progress.latest("loss")),
            number(progress.latest("eval_loss")),
            str(run.record.data["created"])[:16].replace("T", " "),
        ]

    def choose(self, event: gr.SelectData) -> str:
        """Choose the run of the row that was clicked."""
        return str(event.row_value[1])

    def ask_to_stop(self, name: str | None, compared: list[str]) -> list[Any]:
        """Have the run save a checkpoint and end."""
        stop_run(self._run(name), force=False)
        return [self.studio.words("runs.stopping"), *self.refresh("", name, compared)]

    def end(self, name: str | None, compared: list[str]) -> list[Any]:
        """End the run at once."""
        stop_run(self._run(name), force=True)
        return [self.studio.words("runs.ended"), *self.refresh("", name, compared)]

    def go_on(self, name: str | None, compared: list[str]) -> list[Any]:
        """Resume the run from its latest checkpoint."""
        run, workplace = self._run(name), self.studio.workplace
        words = resume_words(run)
        cwd = workplace.inside(str(run.record.data.get("cwd") or workplace.root))
        try:
            check_words(self.studio.program.command(words[0]), words[1:], workplace)
        except UsageError as error:
            line = command_line(self.studio.program.name, words)
            raise UsageError(f"{error}\n{self.studio.words('runs.terminal')}\n{line}") from None
        job = self.studio.jobs.start(words, cwd=cwd)
        return [
            self.studio.words("runs.resumed", job=job.name),
            *self.refresh("", name, compared),
        ]

    def remove(self, name: str | None, compared: list[str], sure: str) -> list[Any]:
        """Delete the run once its name was written."""
        run = self._run(name)
        if sure.strip() != run.directory.name:
            raise UsageError(self.studio.words("runs.not_sure", name=run.directory.name))
        delete_run(run)
        return [
            "",
            self.studio.words("runs.deleted", name=run.name),
            *self.refresh("", None, compared),
        ]

    def _run(self, name: str | None) -> RunView:
        if not name:
            raise UsageError(self.studio.words("runs.choose"))
        return get_run(self.studio.workplace, name)

    def draw(self, names: list[str] | None, curve: str, weight: float) -> Any:
        """Return the curves of several runs in one picture."""
        rows = []
        for name in names or ():
            progress = get_run(self.studio.workplace, name).progress()
            for metric in CURVES[curve]:
                label = name if metric == CURVES[curve][0] else f"{name} · {metric}"
                rows += [
                    {"step": step, "value": value, "run": label}
                    for step, value in smoothed(progress.curve(metric), weight)
                ]
        return curve_rows(rows, "run")


def number(value: Any) -> str:
    """Return a figure of a log for a table."""
    if not isinstance(value, int | float):
        return ""
    return f"{value:.4g}" if abs(value) < 1e-2 else f"{value:.4f}".rstrip("0").rstrip(".")
