"""The mean of the rewards of a whole run, which BCO compares with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ft_align.ranks import add_up


@dataclass(slots=True)
class RunningMean:
    """A mean over everything noted so far, alike on all ranks once it is settled.

    Attributes:
        value: the mean as of the last ``settle``; 0 before there is one.
        count: how many numbers it was taken of.
    """

    value: float = 0.0
    count: float = 0.0
    _sum: float = 0.0
    _noted: float = 0.0

    def note(self, total: float, count: float) -> None:
        """Note numbers by their sum; the mean stays as it is until ``settle``."""
        self._sum += total
        self._noted += count

    def settle(self) -> None:
        """Take in what all ranks noted; all ranks call together."""
        total, count = add_up(self._sum, self._noted)
        self._sum = self._noted = 0.0
        if count:
            whole = self.count + count
            self.value += (total - count * self.value) / whole
            self.count = whole

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from a saved mean; an empty one begins anew."""
        self.value, self.count = state.get("mean", 0.0), state.get("count", 0.0)
        self._sum = self._noted = 0.0
