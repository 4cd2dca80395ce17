"""Which rows come together in a micro-batch, and when: computed from seed and epoch, alike on all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from ft_core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

Arrangement = Literal["random", "by_length", "longest_first"]
"""How the items of an epoch are put in order.

``by_length`` brings items of about the same length into the same global batch, ``longest_first`` goes through them
from the longest to the shortest, which shows early whether memory suffices.
"""

SORTED_TOGETHER = 50
"""Global batches among whose items those of equal length are looked for: enough to find some, and random still."""


class BatchOrder:
    """The rows of each micro-batch, computed from seed and epoch.

    A rank's share of every global batch of ``batch_size × world_size`` items is taken from one order
    that all ranks compute alike. The last global batch of an epoch may be smaller: nothing is repeated
    to fill it, and a rank may get nothing of it (an empty list).

    Args:
        items: how many items there are, or which ones.
        groups: rows of each item; ``None`` where items are rows.
        batch_size: items of a micro-batch on one rank.
        seed: of the order; ``None`` keeps the given order.
        rank, world_size: whose share this is.
        arrangement: what the order looks for besides chance.
        lengths: tokens of each item, which arrangements other than ``random`` need.
    """

    def __init__(
        self,
        items: int | range,
        *,
        groups: Sequence[Sequence[int]] | None = None,
        batch_size: int = 1,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        arrangement: Arrangement = "random",
        lengths: Sequence[int] | None = None,
    ) -> None:
        if arrangement != "random" and lengths is None:
            raise UsageError(f"the order {arrangement} needs the length of every row")
        self._items = range(items) if isinstance(items, int) else items
        self._groups, self._batch_size = groups, batch_size
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._arrangement, self._lengths = arrangement, lengths
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch (0 is the first)."""
        self._epoch = epoch

    def order(self) -> list[int]:
        """Return the items of the epoch in their order, the same on every rank."""
        import numpy as np

        items = np.asarray(self._items)
        if self._arrangement == "longest_first":
            return cast(list[int], items[np.argsort(-self._tokens(items), kind="stable")].tolist())
        if self._seed is None:
            return list(self._items)
        generator = np.random.Generator(np.random.PCG64([self._seed, self._epoch]))
        order = items[generator.permutation(len(items))]
        if self._arrangement == "by_length":
            order = self._grouped(order, generator)
        return cast(list[int], order.tolist())

    def _grouped(self, order: Array, generator: np.random.Generator) -> Array:
        """Sort stretches of a random order by length, and shuffle the global batches cut from them."""
        import numpy as np

        size = self._batch_size * self._world_size
        parts = [
            part[np.argsort(-self._tokens(part), kind="stable")]
            for part in np.split(
                order, range(size * SORTED_TOGETHER, len(order), size * SORTED_TOGETHER)
            )
        ]
        ordered = np.concatenate(parts)
        whole = len(ordered) // size  # what doesn't fill a batch stays last
        batches = ordered[: whole * size].reshape(whole, size)
        return np.concatenate([generator.permutation(batches).ravel(), ordered[whole * size :]])

    def _tokens(self, items: Array) -> Array:
        import numpy as np

        assert self._lengths is not None
        return np.asarray(self._lengths)[items]

    def __len__(self) -> int:
        return math.ceil(len(self._items) / (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order()
        size = self._batch_size * self._world_size
        for start in range(0, len(order), size):
            share = order[start : start + size][self._rank :: self._world_size]
            if self._groups is None:
                yield share
            else:
                yield [row for item in share for row in self._groups[item]]
