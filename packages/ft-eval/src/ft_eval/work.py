"""What an evaluation is asked to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ft_eval.arguments import EvalArguments
from ft_eval.respondents.protocol import Respondent
from ft_eval.results import Statistics, TaskResult
from ft_eval.tasks.limit import Limit

T = TypeVar("T")
Say = Callable[[str], None]


class Wait(Protocol):
    """Runs a coroutine to its end, always in the same loop."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        """Return what it returns."""
        ...


def to_stderr(text: str) -> None:
    """Print a line for the person, apart from the results."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Work:
    """What is evaluated and how.

    Attributes:
        arguments: the flags.
        seed: of all random choices.
        argv: the command's words, for the record.
        plain: all arguments without secrets, for the record.
        say: is told what is done and why.
    """

    arguments: EvalArguments
    seed: int = 42
    argv: tuple[str, ...] = ()
    plain: Mapping[str, Any] = field(default_factory=dict)
    say: Say = to_stderr

    @property
    def statistics(self) -> Statistics:
        """How intervals are made."""
        return Statistics(seed=self.seed)

    @property
    def limit(self) -> Limit | None:
        """Which questions are asked; ``None`` for all."""
        given = self.arguments.eval_limit
        return None if given is None else Limit.read(given)


class Backend(Protocol):
    """What asks and grades."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        ...

    def examine(self, respondent: Respondent, wait: Wait, directory: Path) -> list[TaskResult]:
        """Ask a respondent everything.

        Args:
            respondent: who is asked.
            wait: runs coroutines of the respondent.
            directory: of the run, for files of the backend's own.

        Raises:
            FtError: a task can't be done, or the respondent failed.
        """
        ...
