"""Where an evaluation is written, and which earlier answers it may use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ft_core.errors import UsageError
from ft_core.runs import find_runs
from ft_eval.respondents.remembered import ANSWERS_FILE

DEFAULT_NAME = "defaults"


def new_directory(output_dir: str | Path, name: str | None) -> Path:
    """Create ``<output_dir>/<name or defaults>/<time>``.

    Raises:
        UsageError: it can't be written.
    """
    parent = Path(output_dir).expanduser() / (name or DEFAULT_NAME)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            directory = parent / (stamp if number == 0 else f"{stamp}-{number}")
            try:
                directory.mkdir()
            except FileExistsError:
                continue
            return directory.resolve()
    except OSError as error:
        raise UsageError(
            f"--eval_output_dir {output_dir}: can't write there ({error.strerror or error})"
        ) from error
    raise UsageError(f"--eval_output_dir {output_dir}: a thousand runs began in this second")


def earlier_answers(
    directory: Path, arguments: Mapping[str, Any], *, finished: bool
) -> Iterator[Path]:
    """Give files of answers beside a new run.

    Args:
        directory: of the new run.
        arguments: of the new run.
        finished: also give those of finished runs. Without it only those of runs that broke off, as far as no
            later run with the same arguments came to its end.
    """
    ended: set[str] = set()
    records = [r for r in find_runs(directory.parent) if r.directory.parent == directory.parent]
    for record in sorted(records, key=lambda record: _order(record.directory), reverse=True):
        file = record.directory / ANSWERS_FILE
        if record.directory == directory or not file.is_file():
            continue
        key = _same_work(record.data["arguments"])
        if record.status == "done":
            ended.add(key)
            if finished:
                yield file
        elif record.status != "running" and (finished or key not in ended):
            yield file


def _order(directory: Path) -> tuple[str, int]:
    day, time, *number = directory.name.split("-")
    return f"{day}-{time}", int(number[0]) if number else 0


def _same_work(arguments: Mapping[str, Any]) -> str:
    """Return what two runs have in common that ask the same."""
    kept = {name: value for name, value in arguments.items() if name not in _ANYHOW}
    return json.dumps(kept, sort_keys=True, default=str)


_ANYHOW = ("eval_use_cache", "eval_output_dir", "eval_batch_size", "eval_timeout", "deploy_timeout")
