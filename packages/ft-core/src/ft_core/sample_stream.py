"""The protocol of samples that come one after the other, for rows that are too many to be indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ft_core.samples import Sample

Cursor = Mapping[str, Any]
"""A position in a shard of a stream, as plain JSON."""


@dataclass(frozen=True, slots=True)
class StreamItem:
    """What counts as one item of a batch.

    Attributes:
        samples: one sample, or those of a pack.
        epoch: which pass over the rows they belong to, from 0.
        cursor: where the next item begins.
        dropped: rows since the item before that gave no sample, by reason.
    """

    samples: tuple[Sample, ...]
    epoch: int
    cursor: Cursor
    dropped: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class SampleStream(Protocol):
    """Samples of rows that are read, shuffled, encoded and packed on the way."""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever decides which samples come when; a resumed run must agree with it."""
        ...

    def items(self, shard: int, shards: int, cursor: Cursor | None = None) -> Iterator[StreamItem]:
        """Give the items of one shard without end, epoch after epoch.

        The shards of a stream divide its rows: each row is in exactly one of them, once in each epoch.

        Args:
            shard: which one, from 0.
            shards: how many there are.
            cursor: that of the last item taken before; ``None`` begins.
        """
        ...
