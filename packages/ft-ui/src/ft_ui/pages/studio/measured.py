"""The table of what evaluations measured."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ft_ui.pages.panel import QUICK
from ft_ui.pages.studio.job_view import JobView
from ft_ui.pages.studio.studio import Studio
from ft_ui.studio.measured import Measured, measured_in

COLUMNS = ("task", "model", "metric", "value", "interval", "questions", "time", "directory")


class MeasuredTable:
    """The table; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
        view: shows the evaluations; its timer refreshes the table.
    """

    def __init__(self, studio: Studio, page: gr.Blocks, view: JobView) -> None:
        self.studio, words = studio, studio.words
        self.seen = gr.State("")
        gr.Markdown(f"### {words('eval.results')}")
        gr.Markdown(words("eval.results_info"))
        self.table = gr.Dataframe(
            headers=[words(f"eval.{name}") for name in COLUMNS],
            datatype="str",
            interactive=False,
            wrap=True,
            show_search="filter",
            max_height=420,
            label=words("eval.results"),
            elem_id="eval-results",
        )
        shown = [self.seen, self.table]
        page.load(self.refresh, [self.seen], shown, **QUICK)
        view.timer.tick(self.refresh, [self.seen], shown, **QUICK)

    def refresh(self, seen: str) -> list[Any]:
        """Return the lines as they are now; nothing where nothing has changed."""
        rows = [row_of(line) for line in measured_in(self.studio.workplace)]
        now = repr(rows)
        return [gr.skip(), gr.skip()] if now == seen else [now, rows]


def row_of(line: Measured) -> list[str]:
    """Return a line's cells, in the order of ``COLUMNS``."""
    known = line.low is not None and line.high is not None
    asked = line.count + line.failed
    return [
        line.task,
        line.model,
        line.metric,
        f"{line.value:.4f}",
        f"{line.low:.4f} – {line.high:.4f}" if known else "",
        f"{line.count}/{asked}" if line.failed else str(line.count),
        line.time[:16].replace("T", " "),
        line.directory,
    ]
