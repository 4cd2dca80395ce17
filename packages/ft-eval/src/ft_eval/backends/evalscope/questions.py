"""A person's own evaluation sets in the layout of EvalScope's general_mcq and general_qa."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ft_core.errors import UsageError
from ft_eval.tasks.custom import Source, sources
from ft_eval.tasks.files import Row, read_rows

DATASETS = {"ceval": "general_mcq", "general_qa": "general_qa"}
"""EvalScope's names of our patterns."""

Choose = Callable[[Sequence[Row]], Sequence[Row]]


def write_questions(
    config: str, directory: Path, choose: Choose, shots: int | None
) -> tuple[dict[str, Any], dict[tuple[str, str], Source]]:
    """Write the questions that are asked, and return EvalScope's dataset_args.

    Args:
        config: the file of custom_eval_config.
        directory: where they go.
        choose: which questions are asked.
        shots: solved examples in front of each question.

    Returns:
        The arguments, and by EvalScope's data set and subset what they came from.

    Raises:
        UsageError: EvalScope has nothing for a pattern.
    """
    arguments: dict[str, Any] = {}
    known: dict[tuple[str, str], Source] = {}
    for source in sources(config):
        entry = source.entry
        if entry.pattern not in DATASETS:
            raise UsageError(
                f"{entry.name}: EvalScope has nothing for pattern {entry.pattern}; use --eval_backend builtin"
            )
        dataset = DATASETS[entry.pattern]
        subset = f"{entry.name}-{source.subset}".replace("/", "-")
        folder = directory / dataset
        folder.mkdir(parents=True, exist_ok=True)
        ending = "_val" if dataset == "general_mcq" else ""
        _write(folder / f"{subset}{ending}.jsonl", choose(read_rows(source.file)))
        if source.examples is not None and dataset == "general_mcq":
            _write(folder / f"{subset}_dev.jsonl", read_rows(source.examples))
        given = arguments.setdefault(dataset, {"local_path": str(folder), "subset_list": []})
        given["subset_list"].append(subset)
        if shots is not None and dataset == "general_mcq":
            given["few_shot_num"] = shots
        known[dataset, subset] = source
    return arguments, known


def _write(file: Path, rows: Sequence[Row]) -> None:
    lines = (json.dumps(_values(row.values), ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8")


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}
