"""Which of a task's questions are asked: ``--eval_limit``."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ft_core.errors import UsageError

T = TypeVar("T")

_SLICE = re.compile(r"\[?\s*(-?\d*)\s*:\s*(-?\d*)\s*\]?")


@dataclass(frozen=True, slots=True)
class Limit:
    """A number of questions drawn by a seed, or a slice in their order.

    Attributes:
        count: how many are drawn; ``None`` for a slice.
        start, stop: of the slice.
    """

    count: int | None = None
    start: int | None = None
    stop: int | None = None

    @classmethod
    def read(cls, text: str) -> Limit:
        """Read ``20`` or ``[10:20]``.

        Raises:
            UsageError: it is neither.
        """
        text = text.strip()
        if text.isdecimal() and int(text) > 0:
            return cls(int(text))
        if match := _SLICE.fullmatch(text):
            start, stop = (int(part) if part else None for part in match.groups())
            return cls(None, start, stop)
        raise UsageError(
            f"--eval_limit {text}: give a number of questions such as 20, or a slice such as [10:20]"
        )

    def indices(self, size: int, seed: int) -> list[int]:
        """Return which of ``size`` questions are asked, in their order.

        Drawing instead of taking the first keeps sorted data from giving one kind of question only.

        Raises:
            UsageError: a slice holds no question.
        """
        if self.count is None:
            chosen = list(range(size))[self.start : self.stop]
            if not chosen:
                raise UsageError(
                    f"--eval_limit [{_shown(self.start)}:{_shown(self.stop)}]: no question is there; "
                    f"there are {size}"
                )
            return chosen
        if self.count >= size:
            return list(range(size))
        return sorted(random.Random(f"{seed}/limit").sample(range(size), self.count))

    def choose(self, items: Sequence[T], seed: int) -> list[T]:
        """Return the items that are asked."""
        return [items[index] for index in self.indices(len(items), seed)]


def _shown(bound: int | None) -> str:
    return "" if bound is None else str(bound)
