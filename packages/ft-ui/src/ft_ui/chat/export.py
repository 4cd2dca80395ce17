"""Rows to train on, made from saved conversations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ft_core.errors import DataError, UsageError
from ft_core.examples import Example
from ft_ui.chat.media import kept
from ft_ui.chat.messages import Conversation
from ft_ui.chat.saved import load_conversation, write_text

RowKind = Literal["conversation", "preference"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: the number of rows, and the files that gave none, with their reason."""

    rows: int
    skipped: tuple[tuple[str, str], ...]


def rows_of(conversation: Conversation, kind: RowKind) -> list[Example]:
    """Return the rows a conversation gives: itself, or one per vote.

    Raises:
        DataError: there is nothing in it to learn from.
    """
    if kind == "conversation":
        return [conversation.training_row()]
    rows = conversation.preference_rows()
    if not rows:
        raise DataError("the conversation has no votes", rule="no_votes")
    return rows


def export_rows(
    files: Sequence[str | Path], output: str | Path, *, kind: RowKind = "conversation"
) -> Exported:
    """Write the rows of saved conversations into one JSON-lines file that ``--dataset`` takes.

    Files that the conversations name are copied to ``media`` beside it.

    Args:
        files: saved conversations.
        output: the file to write, whole or not at all; an existing one is replaced.
        kind: ``conversation`` writes each as a row to fine-tune on, ``preference`` a row per vote.

    Raises:
        DataError: a file can't be read, or none of them gives a row; then nothing is written.
        UsageError: the output can't be written.
    """
    rows: list[Example] = []
    skipped: list[tuple[str, str]] = []
    for file, conversation in [(file, load_conversation(file)) for file in files]:
        try:
            found = rows_of(conversation, kind)
            rows += [kept(row, Path(output).expanduser().parent) for row in found]
        except DataError as error:
            skipped.append((str(file), str(error)))
        except OSError as error:
            raise UsageError(
                f"{output}: can't be written ({error.strerror or error}); choose another place"
            ) from error
    if not rows:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in skipped) or "no files are given"
        raise DataError(f"no rows to write: {reasons}", rule="no_rows")
    lines = [json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows]
    write_text("".join(lines), output)
    return Exported(len(rows), tuple(skipped))
