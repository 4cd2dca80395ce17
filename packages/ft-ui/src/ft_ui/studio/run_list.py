"""Runs below the workplace, however they were started."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.errors import UsageError
from ft_core.runs import RUN_FILE, RunRecord
from ft_ui.studio.jobs import send_stop
from ft_ui.studio.metrics import Progress, read_progress
from ft_ui.studio.workplace import Workplace


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as the studio shows it.

    Attributes:
        name: its directory, from the workplace on.
        record: what ``run.json`` says.
    """

    name: str
    record: RunRecord

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.record.directory

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments it was started with."""
        found: Mapping[str, Any] = self.record.data.get("arguments") or {}
        return found

    @property
    def status(self) -> str:
        """How it goes; a run that was stopped after saving a checkpoint is interrupted, not done."""
        status = self.record.status
        stopped = status == "done" and bool(self.progress().summary.get("interrupted"))
        return "interrupted" if stopped else status

    @property
    def model(self) -> str:
        """The model's name."""
        given = self.arguments.get("model_type") or self.arguments.get("model_id_or_path")
        return str(given or self.directory.parent.name)

    @property
    def data(self) -> str:
        """The rows, as they were given."""
        return " ".join(map(str, self.arguments.get("dataset") or ()))

    def progress(self) -> Progress:
        """Return how far it is."""
        return read_progress(self.directory / str(self.record.data.get("metrics", "logging.jsonl")))

    def checkpoints(self) -> list[Path]:
        """Return its checkpoints, the latest last."""
        found = [
            path
            for path in self.directory.glob("checkpoint-*")
            if path.name.removeprefix("checkpoint-").isdigit()
        ]
        return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def find_runs_in(workplace: Workplace) -> list[RunView]:
    """Return all runs, newest first; directories that begin with a dot are left out."""
    found: list[RunView] = []
    for directory, below, names in os.walk(workplace.root):
        below[:] = [name for name in below if not name.startswith((".", "checkpoint-", "__"))]
        if RUN_FILE in names and (record := _read(Path(directory))) is not None:
            found.append(RunView(workplace.short(directory), record))
    return sorted(found, key=lambda run: str(run.record.data["created"]), reverse=True)


def get_run(workplace: Workplace, name: str) -> RunView:
    """Return the run in a directory.

    Raises:
        UsageError: it is outside of the workplace or holds no run.
    """
    record = _read(workplace.inside(name))
    if record is None:
        raise UsageError(f"{name}: there is no run")
    return RunView(workplace.short(record.directory), record)


def checkpoints_in(workplace: Workplace) -> list[str]:
    """Return the checkpoints of all runs, the newest run's latest first."""
    return [
        workplace.short(path)
        for run in find_runs_in(workplace)
        for path in reversed(run.checkpoints())
    ]


def stop_run(run: RunView, *, force: bool) -> None:
    """Ask a run to save a checkpoint and end, or end it at once.

    Raises:
        UsageError: it isn't running, or it runs on another machine.
    """
    if run.record.status != "running":
        raise UsageError(f"{run.name}: isn't running ({run.record.status})")
    data = run.record.data
    if data.get("host") != os.uname().nodename:
        raise UsageError(f"{run.name}: runs on {data.get('host')}; stop it there")
    send_stop(data.get("pid"), data.get("pid_start"), force=force)


def resume_words(run: RunView) -> list[str]:
    """Return the words that go on with a run from its latest checkpoint.

    Raises:
        UsageError: it is running, or has no checkpoint.
    """
    if run.record.status == "running":
        raise UsageError(f"{run.name}: is running; stop it first")
    checkpoints = run.checkpoints()
    if not checkpoints:
        raise UsageError(f"{run.name}: has no checkpoint to go on from; clone it instead")
    words = list(map(str, run.record.data["argv"]))
    if "--resume_from_checkpoint" in words:
        place = words.index("--resume_from_checkpoint")
        del words[place : place + 2]
    return [*words, "--resume_from_checkpoint", str(checkpoints[-1])]


def delete_run(run: RunView) -> None:
    """Delete a run's directory.

    Raises:
        UsageError: it is running.
    """
    if run.record.status == "running":
        raise UsageError(f"{run.name}: is running; stop it first")
    shutil.rmtree(run.directory)


def _read(directory: Path) -> RunRecord | None:
    try:
        data = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    if not isinstance(data, dict) or not {"command", "status", "created", "argv"} <= set(data):
        return None
    return RunRecord(directory, data)
