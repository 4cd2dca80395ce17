"""Reward functions by the names that ``--reward_funcs`` takes.

A reward takes ``prompts``, ``completions`` and the columns of the rows as lists by name, as TRL calls it, and gives a
number for each answer, or ``None`` for one it can't judge.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_align.online.judge import Judge
from ft_core.errors import FtError, UsageError, suggest
from ft_core.registry import run_python_file

Rewards = list[float | None]
Call = Callable[..., Rewards]
Score = Callable[[Sequence[Sequence[int]]], Sequence[float]]
"""Gives each text, as tokens, the score of a reward model."""

PLAIN = ("format", "exact", "length")
WITH_VALUE = ("regex", "file", "model", "judge")


@dataclass(frozen=True)
class Reward:
    """A reward with the name that the log knows it by.

    Attributes:
        name: in the log.
        call: the function.
    """

    name: str
    call: Call

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, **given: Any) -> Rewards:
        """Return the reward of each answer.

        Raises:
            FtError: the function gave something else than a number for each.
        """
        rewards = self.call(**given)
        expected = len(given["completions"])
        if not isinstance(rewards, (list, tuple)) or len(rewards) != expected:
            raise FtError(
                f"--reward_funcs {self.name}: must return a list of {expected} numbers, one for each answer, and "
                f"returned {_short(rewards)}"
            )
        for value in rewards:
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if value is not None and not number:
                raise FtError(
                    f"--reward_funcs {self.name}: returned {_short(value)}, which is no number"
                )
        return [None if value is None else float(value) for value in rewards]


@dataclass(frozen=True, slots=True)
class Makings:
    """What rewards are made of beside their names.

    Attributes:
        pattern: of a whole answer, for ``format`` and ``exact``.
        longest: tokens of the longest answer, for ``length``.
        ids: the tokens of each prompt, by its text.
        judge_model: the model that a judge is asked for.
        open_model: loads a reward model from its directory.
    """

    pattern: str
    longest: int
    ids: Mapping[str, Sequence[int]]
    judge_model: str | None
    open_model: Callable[[Path], Score]


def make_rewards(names: Sequence[str], makings: Makings) -> list[Reward]:
    """Return the rewards that names stand for.

    Raises:
        UsageError: a name is unknown, or what it points to is not there.
    """
    taken: dict[str, int] = {}
    rewards = []
    for given in names:
        kind, separator, value = given.partition(":")
        if kind in WITH_VALUE and not value:
            raise UsageError(f"--reward_funcs {given}: needs a value behind it, {kind}:VALUE")
        if (kind in PLAIN and separator) or kind not in (*PLAIN, *WITH_VALUE):
            known = ", ".join((*PLAIN, *(f"{name}:…" for name in WITH_VALUE)))
            raise UsageError(
                f"--reward_funcs {given}: there is no such reward; use {known}."
                f"{suggest(kind, (*PLAIN, *WITH_VALUE))}"
            )
        name, call = _MAKERS[kind](value, makings)
        taken[name] = taken.get(name, 0) + 1
        rewards.append(Reward(name if taken[name] == 1 else f"{name}_{taken[name]}", call))
    return rewards


def _format(value: str, makings: Makings) -> tuple[str, Call]:
    pattern = re.compile(makings.pattern, re.DOTALL)

    def reward(completions: Sequence[str], **columns: Any) -> Rewards:
        return [float(pattern.fullmatch(text.strip()) is not None) for text in completions]

    return "format", reward


def _exact(value: str, makings: Makings) -> tuple[str, Call]:
    pattern = re.compile(makings.pattern, re.DOTALL)

    def said(text: str) -> str:
        match = pattern.fullmatch(text.strip())
        found = match["answer"] if match and "answer" in pattern.groupindex else text
        return " ".join((found or "").split())

    def reward(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> Rewards:
        pairs = zip(completions, answer, strict=True)
        return [float(said(text) == said(right)) for text, right in pairs]

    return "exact", reward


def _length(value: str, makings: Makings) -> tuple[str, Call]:
    def reward(completion_ids: Sequence[Sequence[int]], **columns: Any) -> Rewards:
        return [1 - min(len(ids), makings.longest) / makings.longest for ids in completion_ids]

    return "length", reward


def _regex(value: str, makings: Makings) -> tuple[str, Call]:
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise UsageError(
            f"--reward_funcs regex:{value}: is no regular expression: {error}"
        ) from error

    def reward(completions: Sequence[str], **columns: Any) -> Rewards:
        return [float(pattern.search(text) is not None) for text in completions]

    return "regex", reward


def _file(value: str, makings: Makings) -> tuple[str, Call]:
    path, _, function = value.rpartition(":")
    file = Path(path).expanduser()
    if not path or not file.is_file():
        raise UsageError(
            f"--reward_funcs file:{value}: {path or value} is no file; write file:PATH.py:FUNCTION"
        )
    module = run_python_file(file, f"--reward_funcs file:{value}")
    found = getattr(module, function, None)
    if not callable(found):
        names = [name for name, _ in inspect.getmembers(module, inspect.isfunction)]
        raise UsageError(
            f"--reward_funcs file:{value}: {file} has no function {function}; it has "
            f"{', '.join(names) or 'none'}"
        )
    return function, found


def _model(value: str, makings: Makings) -> tuple[str, Call]:
    directory = Path(value).expanduser()
    score = makings.open_model(directory)

    def reward(
        prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> Rewards:
        pairs = zip(prompts, completion_ids, strict=True)
        return [*score([[*makings.ids[prompt], *ids] for prompt, ids in pairs])]

    return f"model_{directory.name}", reward


def _judge(value: str, makings: Makings) -> tuple[str, Call]:
    judge = Judge.at(value, makings.judge_model)

    def reward(completions: Sequence[str], question: Sequence[str], **columns: Any) -> Rewards:
        return judge.rate(question, completions)

    return "judge", reward


_MAKERS: Mapping[str, Callable[[str, Makings], tuple[str, Call]]] = {
    "format": _format,
    "exact": _exact,
    "length": _length,
    "regex": _regex,
    "file": _file,
    "model": _model,
    "judge": _judge,
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
