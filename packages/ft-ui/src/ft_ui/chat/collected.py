"""Rows that people make while they chat, added to files that ``--dataset`` takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ft_core.errors import UsageError
from ft_core.examples import Example
from ft_ui.chat.media import kept


@dataclass(frozen=True, slots=True)
class RowFiles:
    """Two files in a directory, which is made when the first row is written.

    Attributes:
        directory: where they are.
    """

    directory: Path

    @property
    def conversations(self) -> Path:
        """Conversations to fine-tune on."""
        return self.directory / "conversations.jsonl"

    @property
    def preferences(self) -> Path:
        """Pairs of answers, for preference training."""
        return self.directory / "preferences.jsonl"

    def add(self, file: Path, rows: Sequence[Example]) -> None:
        """Append rows that the file doesn't hold yet; the files they name are copied beside it.

        Raises:
            UsageError: it can't be written.
            DataError: a file that a row names is gone.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            found = [kept(row, self.directory) for row in rows]
            lines = [json.dumps(row.to_json(), ensure_ascii=False) for row in found]
            known = set(file.read_text(encoding="utf-8").splitlines()) if file.exists() else set()
            with file.open("a", encoding="utf-8") as out:
                out.writelines(f"{line}\n" for line in lines if line not in known)
        except OSError as error:
            raise UsageError(
                f"--rows_dir {self.directory}: {error.strerror or error}; choose a directory you can write"
            ) from error
