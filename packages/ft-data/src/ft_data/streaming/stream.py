"""Samples of rows that are too many to be held: window by window, in a computed order.

A window of rows is encoded in one batch, shuffled and packed; then comes the next. A position is the start of a
window and how much of it was taken, so going on after a stop reads and encodes one window again, and gives exactly
what would have come.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_core.recipe import Encoder
from ft_core.sample_stream import Cursor, StreamItem
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template
from ft_data.packing import pack
from ft_data.report import RowFault
from ft_data.streaming.mixing import MixedRow, MixedRows, RowSource

UNSHUFFLED_WINDOW = 512
"""Rows that are encoded together where no window is needed for shuffling."""


@dataclass(frozen=True, slots=True)
class EncodedStream:
    """Samples of several sources, epoch after epoch; a ``SampleStream``.

    ``Sample.row`` is the row's position in its source, and ``Sample.values["source"]`` the source's number.

    Attributes:
        sources: the rows.
        encoder: says what a sample is.
        template: the chat format.
        names: what the sources are called; part of the fingerprint.
        weights: how often rows of each source are taken, in proportion; empty takes all sources alike.
        window: rows that are shuffled and packed together; 1 or less keeps the order of the sources.
        pack_length: tokens of a pack for each sequence of a sample; ``None`` packs nothing.
        seed: of mixing and shuffling.
    """

    sources: tuple[RowSource, ...]
    encoder: Encoder
    template: Template
    names: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    window: int = 1000
    pack_length: int | None = None
    seed: int = 42

    @property
    def fingerprint(self) -> str:
        """Changes with whatever decides which samples come when."""
        parts = (
            *("1", self.encoder.fingerprint, self.template.fingerprint, len(self.sources)),
            *(self.names, self.weights, self.window, self.pack_length, self.seed),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def items(
        self, shard: int = 0, shards: int = 1, cursor: Cursor | None = None
    ) -> Iterator[StreamItem]:
        """Give the items of one shard without end.

        Raises:
            DataError: the shard has no row in a whole epoch, or none that can be trained on.
        """
        epoch, taken = 0, 0
        state: dict[str, Any] | None = None
        if cursor is not None:
            epoch, taken, state = cursor["epoch"], cursor["taken"], dict(cursor["rows"])
        dropped: Counter[str] = Counter()
        while True:
            rows = self._epoch(epoch, shard, shards, state)
            whole, found = state is None, False
            key = f"{self.seed}/{epoch}/{shard}"
            for item in self._windows(rows, epoch, key, taken, dropped):
                found = True
                yield item
            if whole and not found:
                self._refuse(rows.draws, shard, shards)
            epoch, taken, state = epoch + 1, 0, None

    def _epoch(
        self, epoch: int, shard: int, shards: int, state: dict[str, Any] | None = None
    ) -> MixedRows:
        return MixedRows(
            self.sources,
            self.weights or (1.0,) * len(self.sources),
            seed=self.seed,
            epoch=epoch,
            shard=shard,
            shards=shards,
            state=state,
        )

    def _windows(
        self, rows: MixedRows, epoch: int, key: str, taken: int, dropped: Counter[str]
    ) -> Iterator[StreamItem]:
        """Give what is left of an epoch; ``taken`` items of its first window are left out.

        Drops are counted up and told with the next item there is.
        """
        size = self.window if self.window > 1 else UNSHUFFLED_WINDOW
        counted = taken > 0  # drops of a window that was begun before were told then
        begin = rows.state()
        while window := list(islice(rows, size)):
            groups, lost = self._encode(window, f"{key}/{begin['draws']}")
            if not counted:
                dropped.update(lost)
            for number, samples in enumerate(groups[taken:], taken + 1):
                after = number < len(groups)
                yield StreamItem(
                    tuple(samples),
                    epoch,
                    {
                        "epoch": epoch,
                        "taken": number if after else 0,
                        "rows": begin if after else rows.state(),
                    },
                    dict(dropped),
                )
                dropped.clear()
            taken, counted, begin = 0, False, rows.state()

    def _encode(
        self, window: Sequence[MixedRow], key: str
    ) -> tuple[list[list[Sample]], Counter[str]]:
        """Encode a window; return its items in their order, and the rows that gave none by reason."""
        lost = Counter(item.row.rule for item in window if isinstance(item.row, RowFault))
        good = [item for item in window if isinstance(item.row, Example)]
        samples: list[Sample] = []
        examples = [item.row for item in good if isinstance(item.row, Example)]
        for encoded in self.encoder.encode(examples, self.template) if good else ():
            if isinstance(encoded, Dropped):
                lost[encoded.reason] += 1
                continue
            origin = good[encoded.row]
            values: Mapping[str, float] = {**encoded.values, "source": float(origin.source)}
            samples.append(replace(encoded, row=origin.position, values=values))
        groups = [[sample] for sample in samples]
        if self.pack_length is not None and samples:
            room = self.pack_length * max(len(sample.sequences) for sample in samples)
            packs = pack([sample.length for sample in samples], room)
            groups = [[samples[index] for index in members] for members in packs]
        if self.window > 1:
            random.Random(key).shuffle(groups)
        return groups, lost

    def _refuse(self, rows: int, shard: int, shards: int) -> None:
        share = f"shard {shard + 1} of {shards} (one for each worker of each process)"
        if rows:
            raise DataError(
                f"none of the {rows:,} rows of {share} can be trained on; `ft preview` shows why",
                rule="nothing_to_learn",
            )
        raise DataError(
            f"--streaming: {share} has no rows; use fewer --dataloader_num_workers, or no --streaming for so few rows",
            rule="no_rows",
        )
