"""``--custom_eval_config``: evaluation sets of a person's own.

The file is a JSON list of objects with ``name``, ``pattern``, ``dataset`` (a directory) and
``subset_list``. The patterns of the specification are ``ceval`` (multiple choice) and ``general_qa``
(questions with answers); ``text``, ``tools`` and ``code`` are further ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ft_core.errors import DataError, UsageError, suggest
from ft_core.registry import load_object
from ft_eval.tasks.files import ENDINGS
from ft_eval.tasks.task import Task

PATTERNS: Mapping[str, str] = {
    "ceval": "ft_eval.tasks.multiple_choice:build",
    "general_qa": "ft_eval.tasks.question_answer:build",
    "text": "ft_eval.tasks.text:build",
    "tools": "ft_eval.tasks.tool_use:build",
    "code": "ft_eval.tasks.code:build",
}
"""What reads each pattern."""


class CustomSet(BaseModel):
    """An entry of the file.

    Attributes:
        name: what reports call it.
        pattern: how its rows look and are asked.
        dataset: the directory of its files; looked for beside the file too.
        subset_list: which of its subsets; all that are found if left out.
        method: of multiple choice: by the likelihood of the letters, or by the letter that is written.
        metrics: other ones than the pattern's own.
        max_new_tokens: longest answer.
        system: system message of all questions.
        samples: programs drawn for each problem of ``code``.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1)
    pattern: str
    dataset: str
    subset_list: list[str] | None = None
    method: Literal["likelihood", "letter"] | None = None
    metrics: list[str] | None = Field(None, min_length=1)
    max_new_tokens: int | None = Field(None, ge=1)
    system: str | None = None
    samples: int = Field(1, ge=1)


@dataclass(frozen=True, slots=True)
class Source:
    """What a pattern builds a task from.

    Attributes:
        entry: what the file says of it.
        subset: which one.
        file: its questions.
        examples: solved ones for few-shot prompts; ``None`` where there is no such file.
        shots: how many of them; ``None`` leaves it to the pattern.
        scores: whether the respondent gives likelihoods.
        chat: whether it is asked in conversations.
    """

    entry: CustomSet
    subset: str
    file: Path
    examples: Path | None
    shots: int | None
    scores: bool
    chat: bool


Build = Callable[[Source], Task]


def custom_tasks(file: str | Path, *, shots: int | None, scores: bool, chat: bool) -> list[Task]:
    """Read the file and all evaluation sets it names.

    Args:
        file: the JSON file.
        shots: solved examples in front of each question; ``None`` leaves it to the pattern.
        scores: whether the respondent gives likelihoods.
        chat: whether it is asked in conversations.

    Raises:
        UsageError: the file or an entry can't be used.
        DataError: a file of questions breaks its pattern.
    """
    tasks = []
    for source in sources(file, shots=shots, scores=scores, chat=chat):
        build: Build = load_object(PATTERNS[source.entry.pattern])
        tasks.append(build(source))
    titles = [task.title for task in tasks]
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise UsageError(f"--custom_eval_config {file}: {twice[0]} is there twice; rename one")
    return tasks


def sources(
    file: str | Path, *, shots: int | None = None, scores: bool = False, chat: bool = True
) -> Iterator[Source]:
    """Give what tasks are built from: an entry's subset with its files, one after another.

    Raises:
        UsageError: the file or an entry can't be used.
        DataError: a file of questions isn't there.
    """
    path = Path(file).expanduser()
    for entry in read_config(path):
        directory = _directory(entry, path)
        for subset in _subsets(entry, directory):
            questions = _find(directory, subset, ("_val", "_test", ""), entry)
            examples = _first(directory, subset, ("_dev",))
            yield Source(entry, subset, questions, examples, shots, scores, chat)


def read_config(path: Path) -> list[CustomSet]:
    """Read the entries of the file.

    Raises:
        UsageError: with the entry and the field that can't be used.
    """
    flag = f"--custom_eval_config {path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{flag}: can't be read: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag}: is not JSON: {error}") from None
    if not isinstance(data, list) or not data:
        raise UsageError(
            f'{flag}: must be a list: [{{"name": …, "pattern": "ceval", "dataset": …, "subset_list": […]}}]'
        )
    return [_entry(item, f"{flag}: entry {number}") for number, item in enumerate(data, 1)]


def _entry(item: Any, place: str) -> CustomSet:
    try:
        entry = CustomSet.model_validate(item)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the entry"
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = suggest(field, CustomSet.model_fields) or (
                f" Known are {', '.join(CustomSet.model_fields)}."
            )
        raise UsageError(f"{place}: {field}: {first['msg']}.{hint}") from None
    if entry.pattern not in PATTERNS:
        raise UsageError(
            f"{place}: pattern {entry.pattern!r} is unknown; use one of {', '.join(PATTERNS)}"
        )
    return entry


def _directory(entry: CustomSet, config: Path) -> Path:
    given = Path(entry.dataset).expanduser()
    for directory in (given, config.parent / given):
        if directory.is_dir():
            return directory
    raise UsageError(
        f"--custom_eval_config {config}: {entry.name}: there is no directory {entry.dataset}; "
        "dataset is the directory that holds the files of questions"
    )


def _subsets(entry: CustomSet, directory: Path) -> Sequence[str]:
    if entry.subset_list is not None:
        if not entry.subset_list:
            raise UsageError(f"{entry.name}: subset_list is empty; leave it out to take all")
        return entry.subset_list
    names = {
        file.stem.removesuffix("_val").removesuffix("_test")
        for file in directory.iterdir()
        if file.suffix in ENDINGS and not file.stem.endswith("_dev")
    }
    if not names:
        raise DataError(
            f"holds no file of questions ({', '.join(ENDINGS)})",
            path=str(directory),
            rule="no_file",
        )
    return sorted(names)


def _find(directory: Path, subset: str, parts: Sequence[str], entry: CustomSet) -> Path:
    if found := _first(directory, subset, parts):
        return found
    files = sorted(file.name for file in directory.iterdir() if file.suffix in ENDINGS)
    expected = f"{subset}_val.csv" if entry.pattern == "ceval" else f"{subset}.jsonl"
    raise DataError(
        f"has no {expected} for subset {subset!r} of {entry.name}; "
        f"it holds {', '.join(files) or 'no files of questions'}",
        path=str(directory),
        rule="no_file",
    )


def _first(directory: Path, subset: str, parts: Sequence[str]) -> Path | None:
    for part in parts:
        for ending in ENDINGS:
            if (file := directory / f"{subset}{part}{ending}").is_file():
                return file
    return None
