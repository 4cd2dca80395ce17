"""Runs a command and ends it, with all it has started, as soon as whoever started this script is gone.

Started by path with any Python, so it imports the standard library alone::

    python keeper.py SECONDS_OF_GRACE COMMAND…

The end of standard input is the sign: the pipe closes when its owner ends, however that happens. The command
gets a process group of its own; SIGTERM goes to the group first, SIGKILL after the grace. What the command
left behind when it ended by itself is killed too. The script ends with the command's exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    grace, command = float(arguments[0]), list(arguments[1:])
    to_end = threading.Event()
    for number in ENDING:  # a signal ends the command, and the command's end this script
        signal.signal(number, lambda *_: to_end.set())
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_this_script
    )
    threading.Thread(target=_watch_owner, args=(to_end,), daemon=True).start()
    threading.Thread(target=_end_when_told, args=(child, to_end, grace), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _end_with_this_script() -> None:
    """Ask Linux to end the command even if this script is killed."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch_owner(to_end: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    to_end.set()


def _end_when_told(child: subprocess.Popen[bytes], to_end: threading.Event, grace: float) -> None:
    to_end.wait()
    _signal_group(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
