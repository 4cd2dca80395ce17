"""``ft-serve infer``: answer a file of questions, or chat, on a node without any training code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ft_core.arguments import (
    GenerationArguments,
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.checkpoints import saved_arguments
from ft_core.command import ArgumentGroup, Command, Invocation
from ft_core.errors import DataError, UsageError
from ft_core.examples import Example, Message, Source
from ft_core.prepare import prepare
from ft_serve.arguments import ENGINE_GROUPS, CheckpointArguments, InferArguments


class PromptArguments(ArgumentGroup):
    """The questions."""

    title: ClassVar[str] = "questions"

    prompts: str | None = None
    """JSON lines with messages, or with a query and perhaps a system; none chats in the terminal."""


def run(invocation: Invocation) -> None:
    """Load the model, then answer the file or a person."""
    from ft_serve.infer.session import open_session

    file = invocation.get(PromptArguments).prompts
    rows = None if file is None else read_prompts(Path(file))
    if invocation.get(InferArguments).eval_human:
        rows = None
    elif rows is None and invocation.get(InferArguments).eval_human is False:
        raise UsageError("--eval_human false needs --prompts with the questions")
    prepared = prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        ckpt_dir=invocation.get(CheckpointArguments).ckpt_dir,
    )
    with open_session(invocation, prepared) as session:
        if rows is None:
            session.chat()
        else:
            wanted = invocation.get(InferArguments).show_dataset_sample
            session.answer(rows if wanted == -1 else rows[:wanted])


def read_prompts(file: Path) -> list[Example]:
    """Read a file of questions, one JSON object a line.

    Raises:
        DataError: with the file, line and field.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't be read: {error}", path=str(file), rule="unreadable") from error
    rows = [
        _read_prompt(line, Source(str(file), number))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise DataError("holds no questions", path=str(file), rule="empty_file")
    return rows


def _read_prompt(line: str, source: Source) -> Example:
    place: dict[str, Any] = {"path": source.path, "line": source.line}
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"invalid JSON: {error.msg} (column {error.colno})", **place, rule="invalid_json"
        ) from error
    if isinstance(data, dict) and isinstance(data.get("query"), str):
        system = data.get("system")
        opening = () if system is None else (Message("system", str(system)),)
        return Example(messages=(*opening, Message("user", data["query"])), source=source)
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError("needs messages or a query", **place, field="messages", rule="no_question")
    try:
        return Example.from_json(data, source)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"messages must be objects with role and content ({type(error).__name__}: {error})",
            **place,
            field="messages",
            rule="wrong_type",
        ) from error


def saved(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take over the arguments the checkpoint was made with."""
    if values.get("ckpt_dir") is None or not values["load_args_from_ckpt_dir"]:
        return {}
    return saved_arguments(values["ckpt_dir"], datasets=bool(values["load_dataset_config"]))


COMMAND = Command(
    "infer",
    "Answer a file of questions, or chat in the terminal.",
    (
        ModelArguments,
        QuantizationArguments,
        LoadingArguments,
        TemplateArguments,
        CheckpointArguments,
        GenerationArguments,
        InferArguments,
        *ENGINE_GROUPS,
        PromptArguments,
    ),
    run,
    defaults={"max_length": -1},
    saved=saved,
    elsewhere=dict.fromkeys(
        ("dataset", "val_dataset", "dataset_seed", "dataset_test_ratio", "merge_lora"), "ft-cli"
    ),
    epilog="ft-serve infer --ckpt_dir /models/support-bot --prompts questions.jsonl",
)
