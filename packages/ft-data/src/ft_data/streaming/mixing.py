"""Rows of several sources in one order, divided among shards.

The order is computed: which source comes next is drawn from the seed, the epoch and the number of the draw. A
position is therefore a few numbers, and going on from it reads nothing again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from ft_core.examples import Example
from ft_data.report import RowFault
from ft_data.row_stream import StreamedRow


class RowSource(Protocol):
    """Rows that can be read from any position, such as a ``RowStream``."""

    def rows(self, start: int = 0, step: int = 1) -> Iterator[StreamedRow]:
        """Read the rows at ``start``, ``start + step``, …; those between are passed over cheaply."""
        ...


@dataclass(frozen=True, slots=True)
class MixedRow:
    """A row, or why it is left out, with the number of its source and its position there."""

    source: int
    position: int
    row: Example | RowFault


class MixedRows:
    """One pass of one shard over its rows of all sources, each of them once.

    Shard ``i`` of ``n`` has every n-th row of each source. While a source has rows it is drawn with its
    weight; when it has none left, the others go on.

    Args:
        sources: the rows.
        weights: how often each source is drawn, in proportion.
        seed: of the draws.
        epoch: which pass it is; it also moves which shard has which rows.
        shard, shards: which rows are meant.
        state: what ``state`` returned where this one goes on.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        weights: Sequence[float],
        *,
        seed: int,
        epoch: int,
        shard: int = 0,
        shards: int = 1,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._sources, self._weights = sources, weights
        self._key = f"{seed}/{epoch}/{shard}/{shards}"
        self._offsets = [(shard + number + epoch) % shards for number in range(len(sources))]
        self._shards = shards
        self._taken = [0] * len(sources)
        self._ended = [False] * len(sources)
        self._draws = 0
        if state is not None:
            self._taken, self._ended = list(state["taken"]), list(state["ended"])
            self._draws = state["draws"]
        self._open: dict[int, Iterator[StreamedRow]] = {}

    def state(self) -> dict[str, Any]:
        """Return the position as plain JSON."""
        return {"taken": list(self._taken), "ended": list(self._ended), "draws": self._draws}

    @property
    def draws(self) -> int:
        """How many rows came before."""
        return self._draws

    def __iter__(self) -> Iterator[MixedRow]:
        return self

    def __next__(self) -> MixedRow:
        while not all(self._ended):
            number = self._draw()
            found = next(self._rows(number), None)
            if found is not None:
                self._taken[number] += 1
                self._draws += 1
                return MixedRow(number, found.position, found.row)
            # The same draw then falls on one of the others.
            self._ended[number] = True
        raise StopIteration

    def _rows(self, number: int) -> Iterator[StreamedRow]:
        if number not in self._open:
            start = self._offsets[number] + self._taken[number] * self._shards
            self._open[number] = self._sources[number].rows(start, self._shards)
        return self._open[number]

    def _draw(self) -> int:
        """Choose a source that has rows left."""
        left = [number for number, ended in enumerate(self._ended) if not ended]
        if len(left) == 1:
            return left[0]
        bounds = list(accumulate(self._weights[number] for number in left))
        point = uniform(f"{self._key}/{self._draws}") * bounds[-1]
        return next((n for n, bound in zip(left, bounds, strict=True) if point < bound), left[-1])


def uniform(key: str) -> float:
    """Return a number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53
