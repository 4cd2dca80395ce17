"""Rows that equal or contradict each other, and rows to evaluate on that are trained on too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ft_core.examples import Example, Message
from ft_data.checks.findings import Finding, found, place_of


def duplicates(examples: Sequence[Example]) -> list[Finding]:
    """Find rows that equal another in all that is trained."""
    seen: dict[bytes, int] = {}
    doubles: list[str] = []
    for index, example in enumerate(examples):
        first = seen.setdefault(_key(example.to_json()), index)
        # A row that was sampled more than once is asked for, not a fault of the file.
        if first != index and not _same_place(example, examples[first]):
            doubles.append(f"{place_of(example, index)} equals {place_of(examples[first], first)}")
    return found("duplicate", "rows that equal another row weigh more than they should", doubles)


def conflicts(examples: Sequence[Example]) -> list[Finding]:
    """Find questions that are answered differently in different rows; judged answers may differ."""
    answers: dict[bytes, set[bytes]] = {}
    places: dict[bytes, str] = {}
    for index, example in enumerate(examples):
        if example.answer is None or example.label is not None or example.rejected is not None:
            continue
        key = _key([message.to_json() for message in example.prompt])
        answers.setdefault(key, set()).add(_key(example.messages[-1].to_json()))
        places.setdefault(key, place_of(example, index))
    several = [
        f"{places[key]}: {len(given)} answers" for key, given in answers.items() if len(given) > 1
    ]
    return found(
        "several_answers", "questions that are answered differently in different rows", several
    )


def leaks(train: Sequence[Example], val: Sequence[Example]) -> list[Finding]:
    """Find rows to evaluate on whose question, or text, is trained on; case and white space don't matter."""
    asked: dict[bytes, str] = {}
    for index, example in enumerate(train if val else ()):
        asked.setdefault(_question(example), place_of(example, index))
    leaked = [
        f"{place_of(example, index)} is asked in {asked[key]}"
        for index, example in enumerate(val)
        if (key := _question(example)) in asked
    ]
    return found(
        "leaked",
        "rows to evaluate on are trained on too, so that evaluation looks better than it is",
        leaked,
    )


def _question(example: Example) -> bytes:
    """Return a key of what a row asks; of a text or of token ids, of the whole of it."""
    if example.messages:
        return _key([_said(turn) for turn in example.prompt if turn.role != "system"])
    return _key(_plain(example.text) if example.text is not None else example.to_json())


def _said(turn: Message) -> list[str]:
    return [turn.role, _plain(turn.text)]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _same_place(example: Example, other: Example) -> bool:
    return example.source is not None and example.source == other.source


def _key(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
