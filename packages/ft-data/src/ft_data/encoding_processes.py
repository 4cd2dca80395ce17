"""Encoding in batches: in this process, or in several that get rows and give back arrays."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice

from ft_core.errors import UsageError
from ft_core.examples import Example
from ft_core.recipe import Encoder
from ft_core.templates.template import Template
from ft_data.encoded_arrays import Chunk

CHUNK = 512
"""Rows that are rendered and tokenized in one batch."""

EncodedChunk = tuple[Chunk, int]
"""Samples of a chunk, and how many rows it had."""


def encode_chunks(
    examples: Iterable[Example], encoder: Encoder, template: Template, num_proc: int
) -> Iterator[EncodedChunk]:
    """Encode rows chunk by chunk, in their order.

    Only a few chunks are held at once, however many rows there are.

    Raises:
        UsageError: the encoder can't be sent to other processes, or one of them ended early.
    """
    chunks = _chunks(examples)
    first = list(islice(chunks, num_proc if num_proc > 1 else 0))
    workers = min(num_proc, len(first))
    if workers <= 1:
        for rows in chain(first, chunks):
            yield encode_chunk(rows, encoder, template), len(rows)
        return
    try:
        pickled = pickle.dumps((encoder, template))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--preprocess_num_proc {num_proc}: the recipe or template can't be sent to another process "
            f"({error}); use --preprocess_num_proc 1"
        ) from error
    # Spawned, not forked: the tokenizer has threads of its own, which a fork would leave behind locked.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, _begin, (pickled,)) as pool:
            yield from _in_order(pool, chain(first, chunks), 2 * workers)
    except BrokenProcessPool as error:
        raise UsageError(
            f"--preprocess_num_proc {num_proc}: a process that tokenizes ended early; it ran out of memory, "
            "or can't import the recipe's module; use --preprocess_num_proc 1"
        ) from error


def encode_chunk(rows: Sequence[Example], encoder: Encoder, template: Template) -> Chunk:
    """Encode some rows; none of them may vanish."""
    items = encoder.encode(rows, template)
    missing = set(range(len(rows))) - {item.row for item in items}
    if missing:
        raise AssertionError(
            f"the recipe lost {len(missing)} of {len(rows)} rows, the first is {rows[min(missing)]}"
        )
    return Chunk.of(items)


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    rows = iter(examples)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _in_order(
    pool: ProcessPoolExecutor, chunks: Iterable[list[Example]], ahead: int
) -> Iterator[EncodedChunk]:
    """Have chunks encoded, at most ``ahead`` of them before the first is taken."""
    waiting: deque[tuple[Future[Chunk], int]] = deque()
    for rows in chunks:
        waiting.append((pool.submit(_encode_here, rows), len(rows)))
        if len(waiting) >= ahead:
            future, count = waiting.popleft()
            yield future.result(), count
    for future, count in waiting:
        yield future.result(), count


_work: dict[str, tuple[Encoder, Template]] = {}
"""What this worker process encodes with."""


def _begin(pickled: bytes) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _work["both"] = pickle.loads(pickled)


def _encode_here(rows: list[Example]) -> Chunk:
    return encode_chunk(rows, *_work["both"])
