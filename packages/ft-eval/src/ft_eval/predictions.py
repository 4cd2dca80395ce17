"""Files of answers next to what they should have been."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.errors import DataError
from ft_eval.text_files import read_utf8


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer and the answers that count as right."""

    response: str
    labels: tuple[str, ...]


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a JSON-lines file of ``{"response": text, "label": text or list of texts}``.

    Other fields are left alone, so the result files of ``ft infer`` can be read. Blank lines are skipped.

    Raises:
        DataError: there is no such file, it holds no rows, or a row breaks the format; the message
            names the line and the field.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise DataError("is a directory; give a .jsonl file in it", path=str(path), rule="no_file")
    if not file.exists():
        raise DataError(
            "there is no such file; give a .jsonl file of responses and labels",
            path=str(path),
            rule="no_file",
        )
    text = read_utf8(file, str(path))
    predictions = [
        _prediction(line, str(path), number)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not predictions:
        raise DataError("holds no rows", path=str(path), rule="empty_file")
    return predictions


def _prediction(line: str, path: str, number: int) -> Prediction:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"is not JSON: {error.msg} at column {error.colno}; each line is one JSON object",
            path=path,
            line=number,
            rule="invalid_json",
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"is {_kind(row)}; each line is a JSON object with response and label",
            path=path,
            line=number,
            rule="not_an_object",
        )
    response = _field(row, "response", path, number)
    if not isinstance(response, str):
        raise DataError(
            f"is {_kind(response)}; it must be a text",
            path=path,
            line=number,
            field="response",
            rule="wrong_type",
        )
    label = _field(row, "label", path, number)
    labels = label if isinstance(label, list) else [label]
    if not labels or not all(isinstance(item, str) for item in labels):
        raise DataError(
            f"is {_kind(label)}; it must be a text or a list of texts that count as right",
            path=path,
            line=number,
            field="label",
            rule="wrong_type",
        )
    return Prediction(response, tuple(labels))


def _field(row: Mapping[str, Any], name: str, path: str, number: int) -> Any:
    if name not in row:
        raise DataError(
            f"is missing; the row has {', '.join(row) or 'no fields'}",
            path=path,
            line=number,
            field=name,
            rule=f"missing_{name}",
        )
    return row[name]


def _kind(value: object) -> str:
    names = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(value, list):
        return "an empty list" if not value else "a list with something else than texts"
    return names.get(type(value), "a number")
