"""The rows of a run, and the micro-batches made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ft_core.errors import DataError
from ft_core.recipe import Batch, Recipe
from ft_core.sample_stream import Cursor, SampleStream, StreamItem
from ft_core.samples import Dropped, Sample
from ft_train.order import Arrangement
from ft_train.order import BatchOrder as BatchOrder

Row = Sample | Dropped | Sequence[Sample | Dropped]
"""What a row gives: a sample, or for rows encoded on demand also several samples, or drops."""


@dataclass(frozen=True, slots=True)
class TrainData:
    """What a run trains and evaluates on.

    Attributes:
        train: rows; anything with a length and an index, so also rows that are encoded when asked for;
            or a stream of samples.
        evaluation: rows to evaluate on; empty for none.
        groups: with packing, the indices of the rows that make each pack; ``None`` without. A pack
            counts as one item of a batch.
        evaluation_groups: likewise of the rows to evaluate on.
        evaluation_sets: items to evaluate on that are reported by a name of their own, besides all of them.
        arrangement: how the items to train on are put in order.
        lengths: tokens of each item, for arrangements that need them.
        sources: names of the data sets whose training loss is logged, by their number.
        origins: the number of the data set of each row; a stream's samples know theirs.
    """

    train: Sequence[Row] | SampleStream
    evaluation: Sequence[Row] = ()
    groups: Sequence[Sequence[int]] | None = None
    evaluation_groups: Sequence[Sequence[int]] | None = None
    evaluation_sets: Mapping[str, range] = field(default_factory=dict)
    arrangement: Arrangement = "random"
    lengths: Sequence[int] | None = None
    sources: Sequence[str] = ()
    origins: Sequence[int] | None = None

    @property
    def stream(self) -> SampleStream | None:
        """The stream that is trained on, if it is one."""
        return None if isinstance(self.train, Sequence) else self.train

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are trained on; none of a stream."""
        return self.train if isinstance(self.train, Sequence) else ()

    @property
    def items(self) -> int:
        """What one epoch goes through: rows, or packs; 0 where a stream doesn't know."""
        return len(self.rows) if self.groups is None else len(self.groups)

    @property
    def evaluation_items(self) -> int:
        """What an evaluation goes through: rows, or packs."""
        groups = self.evaluation_groups
        return len(self.evaluation) if groups is None else len(groups)

    def evaluation_parts(self) -> Mapping[str, range]:
        """Return the items to evaluate on by name: those of each set, or all of them under no name."""
        return self.evaluation_sets or {"": range(self.evaluation_items)}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a shard of a stream goes on.

    Attributes:
        worker: which of the rank's shards it is.
        cursor: of the shard.
        epochs: the pass over the rows that each sample before it belongs to.
    """

    worker: int
    cursor: Cursor
    epochs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass.

    Attributes:
        batch: its tensors.
        samples: what they were made of; empty for a filler.
        tokens: tokens in it.
        dropped: rows that were encoded on demand and gave no sample, by reason.
        filler: it only keeps this rank in step with the others and counts for nothing.
        position: where the stream that it came from goes on; ``None`` without a stream.
    """

    batch: Batch
    samples: tuple[Sample, ...]
    tokens: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    filler: bool = False
    position: Position | None = None

    @property
    def trained(self) -> int:
        """Tokens that carry loss."""
        return sum(sequence.trained for sample in self.samples for sequence in sample.sequences)


class Collator:
    """Turns rows into a micro-batch.

    Args:
        recipe: makes the tensors.
        rows: where a filler is taken from when a micro-batch has no sample.
        origins: the number of the data set of each row.
        by_source: say in ``sources`` of the batch [D] which data set each sequence is of.
    """

    def __init__(
        self,
        recipe: Recipe,
        rows: Sequence[Row] = (),
        *,
        origins: Sequence[int] | None = None,
        by_source: bool = False,
    ) -> None:
        self._recipe, self._rows = recipe, rows
        self._origins, self._by_source = origins, by_source

    def __call__(self, rows: Sequence[Row]) -> MicroBatch:
        """Return the micro-batch of these rows, a filler if none of them gives a sample."""
        samples: list[Sample] = []
        dropped: Counter[str] = Counter()
        for row in rows:
            for item in _parts(row):
                if isinstance(item, Sample):
                    samples.append(item)
                else:
                    dropped[item.reason] += 1
        if not samples:
            spare = self._spare()
            return MicroBatch(self._recipe.collate([spare]), (), 0, dropped, filler=True)
        return self._batch(samples, dropped)

    def of_stream(self, worker: int, items: Sequence[StreamItem]) -> MicroBatch:
        """Return the micro-batch of items that followed each other in a stream."""
        samples = [sample for item in items for sample in item.samples]
        dropped: Counter[str] = Counter()
        for item in items:
            dropped.update(item.dropped)
        epochs = tuple(item.epoch for item in items for _ in item.samples)
        return self._batch(samples, dropped, Position(worker, items[-1].cursor, epochs))

    def _batch(
        self,
        samples: Sequence[Sample],
        dropped: Mapping[str, int],
        position: Position | None = None,
    ) -> MicroBatch:
        batch = self._recipe.collate(samples)
        if self._by_source:
            import torch

            batch["sources"] = torch.tensor(
                [self._source(sample) for sample in samples for _ in sample.sequences]
            )
        return MicroBatch(
            batch,
            tuple(samples),
            sum(sample.length for sample in samples),
            dropped,
            position=position,
        )

    def _source(self, sample: Sample) -> int:
        if self._origins is not None:
            return int(self._origins[sample.row])
        return int(sample.values["source"])

    def _spare(self) -> Sample:
        for index in range(len(self._rows)):
            for item in _parts(self._rows[index]):
                if isinstance(item, Sample):
                    return item
        raise DataError("no row gives anything to train on", rule="nothing_to_learn")


def _parts(row: Row) -> Sequence[Sample | Dropped]:
    return (row,) if isinstance(row, (Sample, Dropped)) else row
