"""An evaluation as a table in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ft_eval.compare import Comparison
from ft_eval.reports.lines import compared_cells, lines_of, notes_of
from ft_eval.results import Evaluation


def print_report(evaluation: Evaluation, comparisons: Sequence[Comparison] = ()) -> None:
    """Print results, comparisons and notes."""
    console = Console(file=sys.stdout, soft_wrap=False)
    if not sys.stdout.isatty():
        console = Console(file=sys.stdout, width=140)
    table = Table(title=None)
    for column in ("task", "model", "metric"):
        table.add_column(column, overflow="fold")
    table.add_column("value", justify="right")
    levels = {line.metric.level for line in lines_of(evaluation)}
    table.add_column(f"{max(levels):.0%} interval" if levels else "interval")
    table.add_column("n", justify="right")
    for column in ("shots", "how", "version"):
        table.add_column(column)
    for line in lines_of(evaluation):
        table.add_row(*line.cells)
    console.print(table)
    if comparisons:
        console.print(_comparisons(comparisons))
    for note in notes_of(evaluation):
        console.print(f"note: {note}", markup=False, highlight=False)


def _comparisons(comparisons: Sequence[Comparison]) -> Table:
    table = Table(title=None)
    for column in ("task", "metric", "from", "to"):
        table.add_column(column, overflow="fold")
    for column in ("difference", "interval", "p", "McNemar p"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for item in comparisons:
        table.add_row(*compared_cells(item))
    return table
