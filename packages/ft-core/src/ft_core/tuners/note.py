"""What a tuner notes in a checkpoint for going on with training; plain peft and transformers have no need of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = "ft_tuner.json"


def read_note(directory: Path) -> dict[str, Any]:
    """Return what is noted in a checkpoint; nothing where there is no note."""
    file = directory / _FILE
    if not file.is_file():
        return {}
    return dict(json.loads(file.read_text(encoding="utf-8")))


def add_to_note(directory: Path, **values: Any) -> None:
    """Note values in a checkpoint, beside what is noted already."""
    text = json.dumps({**read_note(directory), **values}, indent=2)
    (directory / _FILE).write_text(text + "\n", encoding="utf-8")
