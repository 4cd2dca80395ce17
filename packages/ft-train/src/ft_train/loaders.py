"""What gives a run its micro-batches: rows in the order of an epoch, or the shards of a stream."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ft_core.recipe import Recipe
from ft_core.sample_stream import Cursor, SampleStream
from ft_train.data import Collator, MicroBatch, TrainData
from ft_train.order import BatchOrder
from ft_train.plan import TrainingPlan
from ft_train.signals import ignore_interrupts


class EpochLoader(DataLoader[Any]):
    """A loader whose order follows the epoch and which draws nothing from the global random state."""

    def __init__(self, rows: Any, order: BatchOrder, collator: Collator, **options: Any) -> None:
        _leave_threads_out(options.get("num_workers", 0))
        super().__init__(
            rows,
            batch_sampler=order,
            collate_fn=collator,
            generator=torch.Generator(),
            worker_init_fn=ignore_interrupts,
            **options,
        )
        self._order = order

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self._order.set_epoch(epoch)


class StreamLoader(DataLoader[Any]):
    """A loader of micro-batches from a stream, without end.

    Each worker of each rank reads a shard of its own; workers take turns, so the order of a rank's
    micro-batches doesn't depend on which of them is faster. Which micro-batches were taken is known from
    what ``taken`` is told, not from what workers have prepared.

    Args:
        stream: the samples.
        collator: makes micro-batches.
        batch_size: items of a micro-batch.
        workers: processes that prepare batches; 0 prepares them here.
        rank, world_size: whose shards these are.
        state: what ``state`` of the loader returned that this one continues.
    """

    def __init__(
        self,
        stream: SampleStream,
        collator: Collator,
        *,
        batch_size: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        _leave_threads_out(workers)
        shards = max(workers, 1)
        cursors: list[Cursor | None] = [None] * shards
        self._next, self._cursors = 0, cursors
        if state is not None:
            self._next, self._cursors = state["next"], list(state["cursors"])
        first = rank * shards
        super().__init__(
            _Shards(
                stream,
                collator,
                batch_size,
                first=first,
                shards=shards * world_size,
                turn=self._next,
                cursors=list(self._cursors),
            ),
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),
            worker_init_fn=ignore_interrupts,
            pin_memory=False,
        )

    def taken(self, batch: MicroBatch) -> None:
        """Note that a micro-batch was trained on: the stream goes on after it."""
        if batch.position is not None:
            self._cursors[batch.position.worker] = batch.position.cursor
            self._next = (batch.position.worker + 1) % len(self._cursors)

    def state(self) -> dict[str, Any]:
        """Return where the stream goes on, as plain JSON."""
        return {"next": self._next, "cursors": list(self._cursors)}


class _Shards(IterableDataset[MicroBatch]):
    """This rank's shards; in a worker process, the one that is its."""

    def __init__(
        self,
        stream: SampleStream,
        collator: Collator,
        batch_size: int,
        *,
        first: int,
        shards: int,
        turn: int,
        cursors: list[Cursor | None],
    ) -> None:
        self._stream, self._collator, self._batch_size = stream, collator, batch_size
        self._first, self._shards = first, shards
        self._turn, self._cursors = turn, cursors

    def __iter__(self) -> Iterator[MicroBatch]:
        info = get_worker_info()
        # The loader asks worker 0 first, so that is the one whose turn it is.
        worker = (self._turn + (info.id if info is not None else 0)) % len(self._cursors)
        items = self._stream.items(self._first + worker, self._shards, self._cursors[worker])
        while batch := list(islice(items, self._batch_size)):
            yield self._collator.of_stream(worker, batch)


STREAM_STATE_FILE = "stream_state.json"


class Loaders:
    """The loaders of one rank of a run, and where its stream stands.

    Args:
        data: what is trained and evaluated on.
        recipe: makes the tensors.
        plan: batch sizes, workers and seed.
        rank, world_size: whose share is loaded, among those that have rows of their own.
    """

    def __init__(
        self, data: TrainData, recipe: Recipe, plan: TrainingPlan, rank: int, world_size: int
    ) -> None:
        self._data, self._recipe, self._plan = data, recipe, plan
        self._rank, self._world_size = rank, world_size
        self._stream: StreamLoader | None = None
        self._resumed: Mapping[str, Any] | None = None

    def train(self) -> EpochLoader | StreamLoader:
        """Return the micro-batches to train on: of an epoch in the order of its seed, or of a stream."""
        data, plan = self._data, self._plan
        if data.stream is not None:
            self._stream = StreamLoader(
                data.stream,
                Collator(self._recipe, by_source=bool(data.sources)),
                batch_size=plan.batch_size,
                workers=plan.dataloader_num_workers,
                rank=self._rank,
                world_size=self._world_size,
                state=self._resumed,
            )
            return self._stream
        order = BatchOrder(
            data.items,
            groups=data.groups,
            batch_size=plan.batch_size,
            seed=plan.seed,
            rank=self._rank,
            world_size=self._world_size,
            arrangement=data.arrangement,
            lengths=data.lengths,
        )
        collator = Collator(
            self._recipe, data.rows, origins=data.origins, by_source=bool(data.sources)
        )
        return self._epoch(data.rows, order, collator)

    def evaluation(self) -> dict[str, EpochLoader]:
        """Return the micro-batches to evaluate on, by the name of their set, in the given order."""
        data = self._data
        return {
            name: self._epoch(
                data.evaluation,
                BatchOrder(
                    items,
                    groups=data.evaluation_groups,
                    batch_size=self._plan.eval_batch_size,
                    rank=self._rank,
                    world_size=self._world_size,
                ),
                Collator(self._recipe, data.evaluation),
            )
            for name, items in data.evaluation_parts().items()
        }

    def _epoch(self, rows: Any, order: BatchOrder, collator: Collator) -> EpochLoader:
        workers = self._plan.dataloader_num_workers
        return EpochLoader(rows, order, collator, num_workers=workers, pin_memory=False)

    def taken(self, batches: Iterable[MicroBatch]) -> None:
        """Note that micro-batches were trained on."""
        if self._stream is not None:
            for batch in batches:
                self._stream.taken(batch)

    def position(self) -> Mapping[str, Any] | None:
        """Return where this rank's part of a stream goes on; ``None`` without a stream."""
        return None if self._stream is None else self._stream.state()

    def save(self, directory: Path, positions: Sequence[Mapping[str, Any] | None]) -> None:
        """Write the positions of all that have rows of their own into a checkpoint."""
        if self._stream is not None:
            text = json.dumps({"ranks": positions}, indent=2) + "\n"
            (directory / STREAM_STATE_FILE).write_text(text, encoding="utf-8")

    def resume(self, checkpoint: Path) -> None:
        """Go on where a checkpoint's stream stood."""
        if self._data.stream is not None:
            text = (checkpoint / STREAM_STATE_FILE).read_text(encoding="utf-8")
            self._resumed = json.loads(text)["ranks"][self._rank]


def _leave_threads_out(workers: int) -> None:
    """Have tokenizers work without threads where workers are forked, which would leave them behind locked."""
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
