"""Rows encoded by a recipe: in batches, in several processes, once for the same rows.

Rows in are samples or drops out; none vanishes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_core.recipe import Encoder
from ft_core.samples import Dropped
from ft_core.templates.template import Template
from ft_data.encoded_arrays import ArrayCollector, Chunk, StoredSamples
from ft_data.encoded_files import EncodedFile, EncodedWriter, read_encoded
from ft_data.encoding_processes import encode_chunks
from ft_data.report import FIRST

Progress = Callable[[int, int | None], None]
"""Is told how many rows of how many are encoded; of how many is not known of rows without a length."""

WORTH_CACHING = 256
"""Rows from which on an encoding is kept."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Samples, and the rows that gave none.

    Attributes:
        samples: in the order of the rows; ``Sample.row`` says which row each was made from. They are made
            from arrays when they are asked for, and so can be many.
        dropped: rows that gave no sample.
        rows: how many rows there were.
        cached: whether they were read from the cache.
        path: the directory they lie in; ``None`` if in memory only.
    """

    samples: StoredSamples
    dropped: tuple[Dropped, ...]
    rows: int
    cached: bool = False
    path: Path | None = None

    @property
    def drops(self) -> Counter[str]:
        """Number of dropped rows by reason."""
        return Counter(item.reason for item in self.dropped)

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Give each sequence as a plain dict, for ``datasets.Dataset.from_generator`` and the like.

        ``labels`` are the ids that are learned and -100 elsewhere; ``loss_weights`` say how much each
        counts; ``row`` and ``sample`` say which sequences belong together.
        """
        for number, sample in enumerate(self.samples):
            for tokens in sample.sequences:
                pairs = zip(tokens.input_ids, tokens.loss_weights, strict=True)
                yield {
                    "input_ids": tokens.input_ids,
                    "labels": [token if weight else -100 for token, weight in pairs],
                    "loss_weights": tokens.loss_weights,
                    "row": sample.row,
                    "sample": number,
                    **sample.values,
                }

    def report_lines(self) -> list[str]:
        """Return a few lines for people: counts, and the first places of each reason."""
        if not self.rows:
            return []
        tokens, trained = int(self.samples.lengths.sum()), int(self.samples.trained.sum())
        lines = [
            f"{self.rows:,} rows gave {len(self.samples):,} samples: {tokens:,} tokens, {trained:,} of them trained"
            + (" (read from the cache)" if self.cached else "")
        ]
        for reason, count in self.drops.items():
            lines.append(f"  dropped {count:,} ({reason}):")
            details = [item.detail for item in self.dropped if item.reason == reason]
            lines += [f"    {detail}" for detail in details[:FIRST]]
            if count > FIRST:
                lines.append(f"    and {count - FIRST:,} more")
        return lines


def encode(
    examples: Iterable[Example],
    encoder: Encoder,
    template: Template,
    *,
    num_proc: int = 1,
    cache_dir: Path | None = None,
    keep: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> EncodedRows:
    """Encode rows.

    Processes that ask for the same rows at the same time share the work: the first encodes, the others
    wait for its file.

    Args:
        examples: the rows; with a cache they are gone through twice, so an iterator won't do.
        encoder: says what a sample is, such as a recipe; its fingerprint is part of the cache's key.
        template: the chat format; likewise.
        num_proc: processes that work on it.
        cache_dir: where encodings of many rows are kept and looked up; ``None`` keeps none.
        keep: keep those of few rows too.
        progress: is called after each batch.
        say: is told when another process is waited for.

    Raises:
        DataError: no row gives a sample; the message says why.
    """
    job = _Job(examples, encoder, template, num_proc, progress)
    if cache_dir is None:
        return job.in_memory()
    key, rows = _key(examples, encoder, template)
    directory = cache_dir / key
    found = read_encoded(directory)
    cached = found is not None
    if found is None and (keep or rows >= WORTH_CACHING):
        try:
            with _locked(directory, say):
                found = read_encoded(directory)
                cached = found is not None
                if found is None:
                    found = job.on_disk(directory, rows)
        except OSError:
            # A cache that can't be written costs time and memory, and nothing else.
            found = None
    if found is None:
        return job.in_memory(rows)
    return EncodedRows(found.samples, found.dropped, found.rows, cached, directory)


def cache_key(examples: Iterable[Example], encoder: Encoder, template: Template) -> str:
    """Return a name that changes with the rows' content, the encoder and the template."""
    return _key(examples, encoder, template)[0]


def _key(examples: Iterable[Example], encoder: Encoder, template: Template) -> tuple[str, int]:
    digest = hashlib.sha256(f"2\n{encoder.fingerprint}\n{template.fingerprint}\n".encode())
    dump = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str).encode
    rows = 0
    for example in examples:
        digest.update(dump(example.to_json()).encode("utf-8", "surrogatepass") + b"\n")
        rows += 1
    return digest.hexdigest()[:40], rows


@contextmanager
def _locked(directory: Path, say: Callable[[str], None] | None) -> Iterator[None]:
    """Be the only process that works on a directory; a killed one leaves no lock behind."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{directory}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if say is not None:
            say("waiting for another process that encodes the same rows")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _Job:
    """Rows to encode, and how."""

    examples: Iterable[Example]
    encoder: Encoder
    template: Template
    num_proc: int
    progress: Progress | None

    def in_memory(self, rows: int | None = None) -> EncodedRows:
        collected, done = ArrayCollector(), 0
        for chunk, count in self._chunks(rows):
            collected.add(chunk, done)
            done += count
        samples = collected.samples()
        _check_not_empty(len(samples), collected.dropped)
        return EncodedRows(samples, tuple(collected.dropped), done)

    def on_disk(self, directory: Path, rows: int) -> EncodedFile | None:
        reasons: list[Dropped] = []
        samples = 0
        with EncodedWriter(directory) as writer:
            for chunk, count in self._chunks(rows):
                writer.add(chunk, count)
                samples += len(chunk.arrays["rows"])
                reasons += chunk.dropped
            _check_not_empty(samples, reasons)
            writer.finish()
        return read_encoded(directory)

    def _chunks(self, rows: int | None) -> Iterator[tuple[Chunk, int]]:
        total = len(self.examples) if isinstance(self.examples, Sized) else rows
        done = 0
        for chunk, count in encode_chunks(
            self.examples, self.encoder, self.template, self.num_proc
        ):
            yield chunk, count
            done += count
            if self.progress is not None:
                self.progress(done, total)


def _check_not_empty(samples: int, dropped: list[Dropped]) -> None:
    """Refuse rows of which none can be trained on; no rows at all are fine."""
    if samples or not dropped:
        return
    counts: Mapping[str, int] = Counter(item.reason for item in dropped)
    parts = ", ".join(f"{count:,} × {reason}" for reason, count in counts.items())
    raise DataError(
        f"none of {len(dropped):,} rows can be trained on ({parts}); the first: {dropped[0].detail}",
        rule="nothing_to_learn",
    )
