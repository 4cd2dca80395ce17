"""Keys and values of finished requests, kept for those whose prompts begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ft_serve.engines.pt.batch.cache import ColumnCache

LEAST_SHARED = 16
"""Tokens that must be alike for a copy to pay."""

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a prompt that has been through the model.

    Attributes:
        layers: keys and values of each layer, shape (heads, columns, head size).
        length: columns that may be used.
    """

    layers: Layers
    length: int


@dataclass(frozen=True, slots=True)
class _Kept:
    adapter: str | None
    tokens: tuple[int, ...]
    layers: Layers


class PrefixStore:
    """Keeps what was computed for the latest requests.

    Args:
        capacity: tokens of all that is kept; 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: list[_Kept] = []

    @property
    def tokens(self) -> int:
        """Tokens kept."""
        return sum(len(item.tokens) for item in self._kept)

    def keep(
        self, cache: ColumnCache, row: int, tokens: Sequence[int], adapter: str | None
    ) -> None:
        """Copy a row; its tokens are those whose columns are filled. The oldest are forgotten."""
        known = tuple(tokens)
        if not LEAST_SHARED <= len(known) <= self._capacity:
            return
        if any(
            item.adapter == adapter and item.tokens[: len(known)] == known for item in self._kept
        ):
            return
        self._kept = [
            item
            for item in self._kept
            if item.adapter != adapter or item.tokens != known[: len(item.tokens)]
        ]
        self._kept.append(_Kept(adapter, known, cache.copy_row(row)))
        while self.tokens > self._capacity:
            self._kept.pop(0)

    def find(self, tokens: Sequence[int], adapter: str | None) -> Prefix | None:
        """Return the longest beginning of these tokens that is kept, but never all of them."""
        best, length = None, LEAST_SHARED - 1
        for item in self._kept:
            if item.adapter == adapter:
                shared = min(_shared(item.tokens, tokens), len(tokens) - 1)
                if shared > length:
                    best, length = item, shared
        return None if best is None else Prefix(best.layers, length)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
