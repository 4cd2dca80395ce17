"""Commands that the studio started: detached processes, each with a directory that says all about it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ft_core.errors import UsageError
from ft_core.runs import process_start, write_json
from ft_ui.studio.detached import JOB_FILE, LOG_FILE
from ft_ui.studio.program import Program
from ft_ui.studio.workplace import OWN, Workplace

JobStatus = Literal["starting", "running", "done", "failed", "stopped", "lost"]
_NAME = re.compile(r"\d{8}-\d{6}-[\w-]+-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Job:
    """A command that was started.

    Attributes:
        directory: holds ``job.json`` and ``log.txt``.
        data: the file's content.
    """

    directory: Path
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.directory.name

    @property
    def command(self) -> str:
        """The command of ``ft``."""
        return str(self.data["words"][0])

    @property
    def words(self) -> list[str]:
        """What follows ``ft``."""
        return [str(word) for word in self.data["words"]]

    @property
    def alive(self) -> bool:
        """Whether its process is there; another process that got its number doesn't count."""
        pid, started = self.data.get("pid"), self.data.get("pid_start")
        return "exit_code" not in self.data and pid is not None and process_start(pid) == started

    @property
    def status(self) -> JobStatus:
        """How it goes."""
        code = self.data.get("exit_code")
        if code is not None:
            if code == 0:
                return "done"
            return "stopped" if code in (130, -signal.SIGTERM, -signal.SIGINT, -9) else "failed"
        if self.alive:
            return "running"
        begun = "pid" in self.data
        if self._watched(begun):  # what ended a moment ago has its exit code soon
            return "running" if begun else "starting"
        return "lost"

    def _watched(self, begun: bool) -> bool:
        """Whether there is, or will be, a process that writes down how the command ends."""
        watcher = self.data.get("watcher")
        if watcher is None:
            return not begun
        return bool(process_start(watcher) == self.data["watcher_start"])

    def log(self, limit: int = 40_000) -> str:
        """Return the end of its output, with progress bars at their last state."""
        try:
            with (self.directory / LOG_FILE).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - limit))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return "\n".join(
            line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")
        )


@dataclass(frozen=True, slots=True)
class Jobs:
    """Starts, finds and stops commands.

    Attributes:
        workplace: where they work.
        program: what they are commands of.
    """

    workplace: Workplace
    program: Program

    @property
    def directory(self) -> Path:
        """Where the jobs are."""
        return self.workplace.root / OWN / "jobs"

    def start(self, words: Sequence[str], *, cwd: Path | None = None) -> Job:
        """Start a command as a process that outlives this one.

        Args:
            words: the command and its flags; they reach the process as they are, no shell reads them.
            cwd: where it works; ``None`` is the workplace.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        directory = self.directory / f"{stamp}-{words[0]}-{secrets.token_hex(3)}"
        directory.mkdir(parents=True)
        data = {
            "words": list(words),
            "argv": self.program.argv(words),
            "cwd": str(cwd or self.workplace.root),
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        write_json(directory / JOB_FILE, data)
        watcher = subprocess.Popen(
            [sys.executable, "-m", "ft_ui.studio.detached", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.program.environment(),
            start_new_session=True,
        )
        threading.Thread(target=watcher.wait, daemon=True).start()  # leaves no zombie
        return Job(directory, data)

    def all(self) -> list[Job]:
        """Return every job, newest first."""
        if not self.directory.is_dir():
            return []
        names = sorted((item.name for item in self.directory.iterdir()), reverse=True)
        found = (self._read(name) for name in names if _NAME.fullmatch(name))
        return [job for job in found if job is not None]

    def get(self, name: str) -> Job:
        """Return a job by its name.

        Raises:
            UsageError: there is none.
        """
        job = self._read(name) if _NAME.fullmatch(name) else None
        if job is None:
            raise UsageError(f"{name}: there is no such job")
        return job

    def _read(self, name: str) -> Job | None:
        try:
            data = json.loads((self.directory / name / JOB_FILE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return None
        return Job(self.directory / name, data)


def send_stop(pid: Any, started: Any, *, force: bool) -> None:
    """Ask a process to end, or end it; a number that another process has by now is left alone.

    Args:
        pid: its number.
        started: when it started, in clock ticks since boot.
        force: kill it and what it started, instead of asking.

    Raises:
        UsageError: it has ended already.
    """
    if not isinstance(pid, int) or pid <= 1 or process_start(pid) != started:
        raise UsageError("it has ended already")
    if not force:
        os.kill(pid, signal.SIGTERM)
        return
    # A process that leads its group was started in one of its own; others share that of a shell.
    if os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)


def run_now(program: Program, words: Sequence[str], cwd: Path, *, seconds: float = 300) -> str:
    """Run a short command to its end and return what it printed.

    Raises:
        UsageError: it failed; the message is what it said.
    """
    try:
        done = subprocess.run(
            program.argv(words),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=program.environment(),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{program.name} {words[0]} took longer than {seconds:.0f} seconds; take fewer rows"
        ) from None
    if done.returncode != 0:
        raise UsageError(_last_error(done.stderr) or f"{program.name} {words[0]} failed")
    return done.stdout


def _last_error(text: str) -> str:
    lines = text.strip().splitlines()
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("error: "):
            return "\n".join(lines[index:]).removeprefix("error: ")
    return "\n".join(lines[-3:])
