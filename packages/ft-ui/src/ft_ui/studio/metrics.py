"""What a run logs, as curves and as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CURVES = {
    "loss": ("loss", "eval_loss"),
    "accuracy": ("acc", "eval_acc"),
    "learning_rate": ("learning_rate",),
    "grad_norm": ("grad_norm",),
    "tokens_per_second": ("tokens_per_second",),
    "memory": ("memory(GiB)",),
    "reward": ("rewards/margins", "rewards/chosen", "rewards/rejected", "reward"),
}
"""What is drawn together, by the name of the picture."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A run's log.

    Attributes:
        rows: its lines that belong to a step, each with ``step``.
        summary: its last line, once it has ended.
    """

    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The last step."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def steps(self) -> int | None:
        """All steps, as far as they are known."""
        total = str(self.latest("global_step/max_steps") or "").partition("/")[2]
        return int(total) if total.isdigit() else None

    def latest(self, name: str) -> Any:
        """Return the last value of a metric; ``None`` if there is none."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return step and value of a metric."""
        return [
            (int(row["step"]), float(row[name]))
            for row in self.rows
            if isinstance(row.get(name), int | float)
        ]


def read_progress(file: Path) -> Progress:
    """Read ``logging.jsonl``; a line that is still being written is left for the next time."""
    rows: list[Mapping[str, Any]] = []
    summary: Mapping[str, Any] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(row, dict):
            continue
        step = str(row.get("global_step/max_steps", "")).partition("/")[0]
        if step.isdigit():
            rows.append({**row, "step": int(step)})
        elif "log_history" in row:
            summary = row
    return Progress(rows, summary)


def smoothed(points: Sequence[tuple[int, float]], weight: float) -> list[tuple[int, float]]:
    """Return an exponential moving average without the pull towards zero at its beginning.

    Args:
        points: step and value.
        weight: of what came before, from 0 (nothing is changed) to below 1.
    """
    average, mass, found = 0.0, 0.0, []
    for step, value in points:
        average = weight * average + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        found.append((step, average / mass))
    return found
