"""The screen of one run while it goes: figures, curves, its output with errors explained."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ft_core.errors import UsageError
from ft_ui.chat.shown import harmless
from ft_ui.pages.panel import QUICK
from ft_ui.pages.studio.curves import curve_rows, curves
from ft_ui.pages.studio.job_view import job_status
from ft_ui.pages.studio.runs import number
from ft_ui.pages.studio.studio import Studio, offered, telling
from ft_ui.studio.jobs import Job
from ft_ui.studio.metrics import Progress
from ft_ui.studio.run_list import RunView, find_runs_in, get_run, stop_run

PICTURES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory", "accuracy")
FIGURES = (
    *("loss", "eval_loss", "acc", "learning_rate", "grad_norm", "tokens_per_second"),
    *("memory(GiB)", "elapsed_time", "remaining_time"),
)


class LiveScreen:
    """The screen; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
    """

    def __init__(self, studio: Studio, page: gr.Blocks) -> None:
        self.studio, words = studio, studio.words
        self.timer = studio.timer("live")
        self.seen = gr.State("")
        with gr.Row():
            self.run = gr.Dropdown([], label=words("runs.chosen"), elem_id="live-run", scale=3)
            self.smooth = gr.Slider(0, 0.95, 0, step=0.05, label=words("runs.smooth"))
        self.figures = gr.Markdown("", elem_id="live-figures")
        with gr.Row():
            self.stop = gr.Button(words("runs.stop"), elem_id="live-stop", min_width=120)
            self.force = gr.Button(
                words("runs.force"), variant="stop", elem_id="live-force", min_width=120
            )
        self.plots: list[gr.LinePlot] = []
        for pair in (PICTURES[:2], PICTURES[2:4], PICTURES[4:]):
            with gr.Row():
                for name in pair:
                    self.plots.append(
                        gr.LinePlot(
                            x="step", y="value", color="metric", label=words(f"curve.{name}"),
                            height=240, min_width=300, elem_id=f"live-{name}",
                        )
                    )  # fmt: skip
        self.log = gr.Textbox(
            label=words("job.log"), lines=10, max_lines=24, interactive=False, autoscroll=True,
            elem_id="live-log", buttons=["copy"],
        )  # fmt: skip
        shown = [self.seen, self.run, self.figures, *self.plots, self.log]
        wanted = [self.seen, self.run, self.smooth]
        page.load(self.refresh, wanted, shown, **QUICK)
        self.timer.tick(self.refresh, wanted, shown, **QUICK)
        self.run.input(self.refresh, wanted, shown, **QUICK)
        self.smooth.release(self.refresh, wanted, shown, **QUICK)
        self.stop.click(telling(self.ask_to_stop), [self.run], None, **QUICK)
        self.force.click(telling(self.end), [self.run], None, **QUICK)

    def refresh(self, seen: str, name: str | None, weight: float) -> list[Any]:
        """Return the present state, without a name the newest run's; curves only where they changed."""
        runs = find_runs_in(self.studio.workplace)
        names = [run.name for run in runs]
        run = next((run for run in runs if run.name == name), runs[0] if runs else None)
        if run is None:
            empty = curve_rows([], "metric")
            return [
                "",
                gr.Dropdown(choices=[], value=None),
                self.studio.words("live.none"),
                *[empty] * len(PICTURES),
                "",
            ]
        progress, job = run.progress(), self.job_of(run)
        now = f"{run.name} {len(progress.rows)} {weight}"
        return [
            now,
            offered(names, name),
            self.describe(run, progress, job),
            *[gr.skip() if now == seen else curves(progress, each, weight) for each in PICTURES],
            self.studio.words("live.terminal") if job is None else job.log(),
        ]

    def job_of(self, run: RunView) -> Job | None:
        """Return the job that is the run's process; ``None`` if it was started in a terminal."""
        data = run.record.data
        for job in self.studio.jobs.all():
            if (job.data.get("pid"), job.data.get("pid_start")) == (data["pid"], data["pid_start"]):
                return job
        return None

    def describe(self, run: RunView, progress: Progress, job: Job | None) -> str:
        """Return status and figures as a table."""
        words, status = self.studio.words, run.status
        steps = f"{progress.step}/{progress.steps}" if progress.steps else str(progress.step)
        lines = [f"**{words(f'status.{status}')}** · {words('runs.step')} {steps}"]
        values = [(name, progress.latest(name)) for name in FIGURES]
        known = [(name, value) for name, value in values if value is not None]
        if known:
            lines += [
                "| " + " | ".join(words(f"figure.{name}") for name, _ in known) + " |\n"
                "|" + "---|" * len(known) + "\n"
                "| " + " | ".join(number(value) or str(value) for _, value in known) + " |"
            ]
        if (error := run.record.data.get("error")) is not None:
            lines.append(f"⚠ {harmless(str(error))}")
        if job is not None and job.status == "failed":
            lines.append(job_status(job, job.log(), words))
        return "\n\n".join(lines)

    def ask_to_stop(self, name: str | None) -> None:
        """Have the run save a checkpoint and end."""
        self._stop(name, force=False)

    def end(self, name: str | None) -> None:
        """End the run at once."""
        self._stop(name, force=True)

    def _stop(self, name: str | None, *, force: bool) -> None:
        if not name:
            raise UsageError(self.studio.words("runs.choose"))
        stop_run(get_run(self.studio.workplace, name), force=force)
        gr.Info(self.studio.words("runs.ended" if force else "runs.stopping"))
