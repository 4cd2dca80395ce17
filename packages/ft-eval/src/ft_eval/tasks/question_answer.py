"""Questions with answers, pattern ``general_qa``: history, query and response.

``response`` may be a list of answers that count as right. ``schema`` is a JSON schema that the answer has
to follow where the metric ``json_valid`` is asked for.
"""

from __future__ import annotations

from typing import Any

from ft_core.examples import Message
from ft_eval.measures import MEASURES
from ft_eval.respondents.protocol import Prompt
from ft_eval.tasks.custom import Source
from ft_eval.tasks.files import Row, read_rows
from ft_eval.tasks.task import Item, Task

MEASURED = ("rouge-1", "rouge-2", "rouge-l", "bleu-4", "f1", "exact_match")
"""What is measured where nothing else is said."""


def build(source: Source) -> Task:
    """Read a file of questions with answers."""
    names = tuple(source.entry.metrics or MEASURED)
    for name in names:
        MEASURES.get(name)  # an unknown one is refused before anything is asked
    items = tuple(_item(row, number, source) for number, row in enumerate(read_rows(source.file)))
    return Task(
        source.entry.name,
        items,
        "generation",
        names,
        subset=source.subset,
        max_new_tokens=source.entry.max_new_tokens or 512,
    )


def _item(row: Row, number: int, source: Source) -> Item:
    messages = [*_system(row, source), *_history(row), Message("user", row.text("query"))]
    prompt = Prompt(tuple(messages))
    if not source.chat:
        prompt = Prompt(text="\n".join(message.text for message in messages))
    extra = {"schema": row.values["schema"]} if "schema" in row.values else {}
    needs_reference = set(source.entry.metrics or MEASURED) - {"json_valid"}
    return Item(
        row.text("id", str(number)),
        prompt,
        _references(row, needed=bool(needs_reference)),
        extra=extra,
        place=row.place,
    )


def _system(row: Row, source: Source) -> list[Message]:
    system = row.values.get("system", source.entry.system)
    return [] if system is None else [Message("system", str(system))]


def _history(row: Row) -> list[Message]:
    history: Any = row.values.get("history") or []
    messages = []
    if not isinstance(history, list):
        row.fail("must be a list of [question, answer] pairs", "history", "wrong_type")
    for pair in history:
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            row.fail("must be a list of [question, answer] pairs", "history", "wrong_type")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return messages


def _references(row: Row, *, needed: bool) -> tuple[str, ...]:
    given = row.values.get("response")
    if given is None and not needed:
        return ()
    if isinstance(given, list):
        if not given or not all(isinstance(text, str) for text in given):
            row.fail("must be a text or a list of texts", "response", "wrong_type")
        return tuple(given)
    return (row.text("response"),)
