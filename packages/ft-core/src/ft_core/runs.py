"""The run directory: one place for everything a command writes, with a ``run.json`` others can read.

Layout: ``<output_dir>/<model_type>/v<N>-<YYYYmmdd-HHMMSS>/``. ``run.json`` holds the command, its
arguments, the process and its status; ``ft runs`` and the studio read it, and read runs they did not
start.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ft_core.errors import FtError, UsageError
from ft_core.launch import from_main, is_first_of_node, is_main

Status = Literal["running", "done", "failed", "interrupted"]
RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a ``run.json`` says.

    Attributes:
        directory: the run directory.
        data: the file's content.
    """

    directory: Path
    data: Mapping[str, Any]

    @property
    def status(self) -> Status | Literal["lost"]:
        """The recorded status; ``lost`` when it says running but its process is gone."""
        status: Status = self.data["status"]
        if status == "running" and self.data.get("host") == socket.gethostname():
            pid, started = self.data["pid"], self.data["pid_start"]
            if process_start(pid) != started:
                return "lost"
        return status


class Run:
    """A run that is being written; of several processes, the first one writes.

    Args:
        directory: a directory of its own; on further nodes it is made where it isn't shared.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._data: dict[str, Any] = {}
        if is_first_of_node():
            directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(
        cls,
        *,
        command: str,
        argv: Sequence[str],
        arguments: Mapping[str, Any],
        output_dir: str | Path,
        model_name: str,
        add_suffix: bool = True,
    ) -> Run:
        """Make the run directory and its ``run.json``; all processes of a run get the same directory.

        Raises:
            UsageError: the directory can't be created or written.
        """
        directory = from_main(
            lambda: new_run_directory(
                Path(output_dir).expanduser(), model_name, add_suffix=add_suffix
            )
        )
        return cls.open(directory, command=command, argv=argv, arguments=arguments)

    @classmethod
    def open(
        cls, directory: Path, *, command: str, argv: Sequence[str], arguments: Mapping[str, Any]
    ) -> Run:
        """Start writing in an existing run directory, as a resumed run does."""
        run = cls(directory)
        run._data = {
            "command": command,
            "argv": list(argv),
            "arguments": dict(arguments),
            "status": "running",
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "cwd": str(Path.cwd()),
            "pid": os.getpid(),
            "pid_start": process_start(os.getpid()),
            "metrics": "logging.jsonl",
        }
        run._write()
        return run

    def update(self, **fields: Any) -> None:
        """Add fields to ``run.json``; a reader never sees half a file."""
        self._data.update(fields)
        self._write()

    def save_arguments(self, name: str = "sft_args.json") -> Path:
        """Write the arguments alone; the file is a valid ``--config``."""
        path = self.directory / name
        if is_main():
            write_json(path, self._data["arguments"])
        return path

    @contextmanager
    def recording(self) -> Iterator[Run]:
        """Record how the body ends: done, interrupted or failed with the reason."""
        start = time.monotonic()
        try:
            yield self
        except KeyboardInterrupt:
            self._end("interrupted", start)
            raise
        except BaseException as error:
            self._end("failed", start, error=f"{type(error).__name__}: {error}")
            raise
        self._end("done", start)

    def _end(self, status: Status, start: float, **fields: Any) -> None:
        ended = datetime.now().astimezone().isoformat(timespec="seconds")
        self.update(
            status=status, ended=ended, seconds=round(time.monotonic() - start, 3), **fields
        )

    def _write(self) -> None:
        if is_main():
            write_json(self.directory / RUN_FILE, self._data)


def new_run_directory(output_dir: Path, model_name: str, *, add_suffix: bool = True) -> Path:
    """Create and return ``<output_dir>/<model_name>/v<N>-<time>``, or ``output_dir`` without suffix.

    Two processes that start at the same moment get different numbers.

    Raises:
        UsageError: the directory can't be created or written.
    """
    parent = output_dir / model_name.replace("/", "-") if add_suffix else output_dir
    try:
        parent.mkdir(parents=True, exist_ok=True)
        directory = parent if not add_suffix else _numbered(parent)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(
            f"--output_dir {output_dir}: can't write there ({error.strerror or error}); choose a directory you can write"
        ) from error
    return directory.resolve()


def _numbered(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    taken = [
        int(match[1]) for item in parent.iterdir() if (match := re.match(r"v(\d+)-", item.name))
    ]
    number = max(taken, default=-1) + 1
    while True:
        # A marker claims the number alone, since two directories of one number differ in their time.
        try:
            (parent / f".v{number}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        directory = parent / f"v{number}-{stamp}"
        directory.mkdir()
        return directory


def find_runs(output_dir: str | Path) -> list[RunRecord]:
    """Return all runs below a directory, newest first; unreadable files are skipped as not being runs."""
    records: list[RunRecord] = []
    for file in Path(output_dir).rglob(RUN_FILE):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        if isinstance(data, dict) and {"command", "status", "created"} <= set(data):
            records.append(RunRecord(file.parent, data))
    return sorted(records, key=lambda record: str(record.data["created"]), reverse=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one.

    Raises:
        FtError: the file can't be written, for example since the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(
            json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FtError(f"{path}: can't be written ({error.strerror or error})") from error


def process_start(pid: int) -> float | None:
    """Return when a process started, in clock ticks since boot; ``None`` if there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (
        None if fields[0] == "Z" else float(fields[19])
    )  # Z: ended, its parent hasn't noticed yet
