"""``python -m ft_ui.studio.detached JOB``: run a job's command and write down how it ended.

It is a process of its own, so that a job outlives the studio and its exit code is known all the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from ft_core.runs import process_start, write_json

JOB_FILE = "job.json"
LOG_FILE = "log.txt"


def main(directory: Path) -> int:
    """Run the command of ``job.json`` with its output in ``log.txt``."""
    file = directory / JOB_FILE
    job: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    job |= {"watcher": os.getpid(), "watcher_start": process_start(os.getpid())}
    write_json(file, job)
    # A signal to this process must not lose the exit code of the command, which gets its own. What is
    # handled, unlike what is ignored, is not passed on to the command.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _go_on)
    # Unbuffered: whoever sees that the job has ended must find the last line too.
    with (directory / LOG_FILE).open("ab", buffering=0) as log:
        try:
            child = subprocess.Popen(
                job["argv"],
                cwd=job["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            log.write(f"error: can't be started: {error}\n".encode())
            write_json(file, {**job, "exit_code": 127, "ended": _now()})
            return 127
        job |= {"pid": child.pid, "pid_start": process_start(child.pid)}
        write_json(file, job)
        code = child.wait()
    write_json(file, {**job, "exit_code": code, "ended": _now()})
    return code


def _go_on(number: int, frame: object) -> None:
    """Do nothing: the command has signals of its own."""


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
