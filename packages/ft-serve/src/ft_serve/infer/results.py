"""The file of answers: one JSON object a row, kept as far as it came when a run is interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ft_core.errors import DataError, UsageError
from ft_core.examples import Example, Message


def result_file(
    ckpt_dir: str | Path | None, model_name: str, *, root: str | Path = "result"
) -> Path:
    """Return a new file ``<ckpt_dir>/infer_result/<time>.jsonl``, or ``result/<model>/…`` without checkpoint.

    Raises:
        UsageError: its directory can't be written.
    """
    base = Path(ckpt_dir) if ckpt_dir is not None else Path(root) / model_name.replace("/", "-")
    directory = base / "infer_result"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            file = directory / (f"{stamp}.jsonl" if number == 0 else f"{stamp}-{number}.jsonl")
            try:
                file.touch(exist_ok=False)
            except FileExistsError:
                continue
            return file.resolve()
    except OSError as error:
        raise UsageError(
            f"answers can't be written to {directory}: {error.strerror or error}"
        ) from error
    raise UsageError(f"{directory} has a thousand files of this second; try again")


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of answers; a last line that was cut off is left out.

    Raises:
        DataError: it can't be read, or a line before the last is no row.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't be read: {error}", path=str(path), rule="unreadable") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(
                f"invalid JSON: {error.msg}", path=str(path), line=number, rule="invalid_json"
            ) from error
        if not isinstance(row, dict) or "response" not in row:
            raise DataError("is no row of answers", path=str(path), line=number, rule="no_response")
        rows.append(row)
    return rows


def question_key(row: Mapping[str, Any]) -> str:
    """Return what tells a row's question and label from those of others."""
    asked = {name: value for name, value in row.items() if name not in ("response", "error")}
    return json.dumps(asked, ensure_ascii=False, sort_keys=True)


def rewrite(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Exchange a file of answers for one with these rows; it is never half written."""
    beside = path.with_name(f"{path.name}.partial")
    with beside.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    beside.replace(path)


class AnswerFile:
    """Appends rows so that each is on disk before the next is begun."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def answer_row(example: Example, response: str | None, **more: Any) -> dict[str, Any]:
    """Return the row of a question and its answer.

    Args:
        example: the question; a closing assistant turn is the label.
        response: the answer; ``None`` where there is none.
        **more: further fields, such as ``error``.
    """
    prompt = [message for message in example.prompt if message.role != "system"]
    row: dict[str, Any] = {
        "system": example.system,
        "query": prompt[-1].text if prompt else "",
        "response": response,
        "label": example.answer,
        "history": history_of(prompt[:-1]),
    }
    for name in ("images", "videos", "audios"):
        if value := getattr(example, name):
            row[name] = list(value)
    return {**row, **more}


def history_of(messages: Sequence[Message]) -> list[list[str]]:
    """Return earlier turns as pairs of question and answer."""
    pairs: list[list[str]] = []
    for message in messages:
        if message.role == "assistant" and pairs and not pairs[-1][1]:
            pairs[-1][1] = message.text
        elif message.role == "assistant":
            pairs.append(["", message.text])
        else:
            pairs.append([message.text, ""])
    return pairs
