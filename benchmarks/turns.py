"""What the races have in common: variants take turns, each run in a fresh process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def turns(variants: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Give every variant once a round, with the round's number from 1.

    The order turns round, so that no variant always runs after the same other.
    """
    for number in range(rounds):
        shift = number % len(variants)
        for variant in (*variants[shift:], *variants[:shift]):
            yield number + 1, variant


def run_in_process(
    script: str, variant: str, job: Path, *, python: str = sys.executable, **environment: str
) -> dict[str, Any]:
    """Run ``script --worker VARIANT JOB DIRECTORY`` and return what it writes into ``result.json`` there.

    Args:
        script: the benchmark.
        variant: which of its variants.
        job: file of the work.
        python: that runs it.
        **environment: variables that the process gets besides.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [python, script, "--worker", variant, str(job), directory]
        told = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **environment}
        ended = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{variant} failed:\n{ended.stderr[-4000:]}")
        result: dict[str, Any] = json.loads((Path(directory) / "result.json").read_text())
        return result
