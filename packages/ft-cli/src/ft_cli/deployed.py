"""A model of this machine behind a server of its own, for evaluators that only ask over HTTP."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.command import Invocation
from ft_core.errors import ModelError
from ft_core.prepare import Say

READY = re.compile(r"^ready: (\S+) answers as ", re.MULTILINE)

PASSED_ON = frozenset({"cli", "config", "env"})
"""Sources of values that a person gave; the child finds all others as this command did."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A server that answers.

    Attributes:
        url: its base URL.
        token: what it demands; it stands in no list of processes.
    """

    url: str
    token: str


@contextmanager
def deployed(
    invocation: Invocation,
    *,
    ckpt_dir: str | None,
    adapters: Mapping[str, str],
    timeout: float,
    say: Say,
) -> Iterator[Deployed]:
    """Start ``ft deploy`` with the flags of this command, wait until it answers, and stop it at the end.

    Args:
        invocation: gives the flags that both commands have.
        ckpt_dir: the checkpoint that is served.
        adapters: further adapters.
        timeout: seconds until it must answer.
        say: is told what is waited for.

    Raises:
        ModelError: the server ended, or didn't answer in time; its log's last line says why.
    """
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="ft-deploy-") as directory:
        log = Path(directory) / "deploy.log"
        with log.open("w", encoding="utf-8") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "ft_cli", *words(invocation, ckpt_dir, adapters)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "FT_API_KEY": token},
            )
        say(f"server     waiting {timeout:g} s for ft deploy to answer (--deploy_timeout)")
        try:
            yield Deployed(_wait_until_ready(child, log, timeout), token)
        finally:
            _stop(child)


def words(invocation: Invocation, ckpt_dir: str | None, adapters: Mapping[str, str]) -> list[str]:
    """Return the command line of the server."""
    from ft_cli.commands.deploy import COMMAND

    known = {name for group in COMMAND.groups for name in group.model_fields}
    line = ["deploy", "--host", "127.0.0.1", "--port", "0"]
    for name, item in invocation.values.items():
        given = item.source in PASSED_ON and name not in (
            "ckpt_dir",
            "lora_modules",
            "host",
            "port",
        )
        if given and name in known and item.value is not None:
            line += [f"--{name}", *_written(item.value)]
    if ckpt_dir is not None:
        line += ["--ckpt_dir", ckpt_dir]
    if adapters:
        line += ["--lora_modules", *(f"{name}={path}" for name, path in adapters.items())]
    return line


def _written(value: Any) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list):
        return [str(item) for item in value]
    return [json.dumps(value) if isinstance(value, dict) else str(value)]


def _wait_until_ready(child: subprocess.Popen[bytes], log: Path, timeout: float) -> str:
    end = time.monotonic() + timeout
    while True:
        if match := READY.search(log.read_text(encoding="utf-8", errors="replace")):
            return match[1]
        if child.poll() is not None:
            raise ModelError(f"ft deploy ended with {child.returncode}: {_last_line(log)}")
        if time.monotonic() > end:
            raise ModelError(
                f"--deploy_timeout {timeout:g}: ft deploy doesn't answer yet, its log ends with: {_last_line(log)}; "
                "give it more seconds"
            )
        time.sleep(0.1)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=40)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
