"""What evaluations below the workplace measured, as the lines of a table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_ui.studio.workplace import Workplace

RESULTS_FILE = "results.json"
"""Written by ``ft eval`` when it has come to its end."""

MOST_LINES = 500


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of a task as one model did it.

    Attributes:
        time: when it was measured, in ISO 8601.
        directory: of the evaluation, from the workplace on.
        model, task, metric: what was measured.
        value: the metric.
        low, high: the ends of its interval; ``None`` where there is none.
        count: questions it was computed on.
        failed: questions without an answer.
    """

    time: str
    directory: str
    model: str
    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    count: int
    failed: int


def measured_in(workplace: Workplace) -> list[Measured]:
    """Return what was measured, the newest first; files that ``ft eval`` didn't write are left out."""
    found: list[Measured] = []
    for directory, below, names in os.walk(workplace.root):
        below[:] = [name for name in below if not name.startswith((".", "checkpoint-", "__"))]
        if RESULTS_FILE in names:
            found += _read(workplace, Path(directory))
    return sorted(found, key=lambda line: line.time, reverse=True)[:MOST_LINES]


def _read(workplace: Workplace, directory: Path) -> list[Measured]:
    try:
        data = json.loads((directory / RESULTS_FILE).read_text(encoding="utf-8"))
        return list(_lines(data, workplace.short(directory)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # another program's file of this name


def _lines(data: Mapping[str, Any], directory: str) -> Iterator[Measured]:
    time = str(data["setup"]["time"])
    for result in data["results"]:
        subset = result.get("subset")
        task = result["task"] if subset is None else f"{result['task']}/{subset}"
        for metric in result["metrics"]:
            yield Measured(
                time=time,
                directory=directory,
                model=str(result["model"]),
                task=str(task),
                metric=str(metric["name"]),
                value=float(metric["value"]),
                low=metric["low"],
                high=metric["high"],
                count=int(metric["count"]),
                failed=int(result["failed"]),
            )
