"""The commands that the studio can start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ft_core.command import Command, Entry
from ft_core.registry import load_object


@dataclass(frozen=True, slots=True)
class Program:
    """A console script and its table of commands.

    Attributes:
        name: as typed: ``ft``.
        words: what starts it as a process.
        table: its commands.
    """

    name: str
    words: tuple[str, ...]
    table: Mapping[str, Entry]

    def has(self, command: str) -> bool:
        """Whether this installation has a command."""
        return command in self.table

    def command(self, name: str) -> Command:
        """Return a command with its argument groups."""
        loaded = load_object(self.table[name].target)
        assert isinstance(loaded, Command)
        return loaded

    def argv(self, words: Sequence[str]) -> list[str]:
        """Return the process that runs these words."""
        return [*self.words, *words]

    def environment(self) -> dict[str, str]:
        """Return the variables of such a process: this one's own, with output at once."""
        return {**os.environ, "PYTHONUNBUFFERED": "1"}
