"""Encoded rows as flat arrays: a hundred million tokens without a Python object for any of them.

Loss weights are kept as runs of equal weights, exactly; a conversation has a few of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ft_core.samples import Dropped, Medium, Sample, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DTYPES: Mapping[str, str] = {
    "ids": "<i4",
    "run_lengths": "<i4",
    "run_weights": "<f8",
    "lengths": "<i4",
    "runs": "<i4",
    "trained": "<i4",
    "sequences": "<i4",
    "rows": "<i8",
    "media_sizes": "<i4",
    "media": "<u1",
    "value_samples": "<i8",
    "value_names": "<i4",
    "values": "<f8",
}
"""The arrays: of tokens (ids); of runs of weights (run_lengths, run_weights); of sequences (lengths in tokens,
runs, trained tokens, bytes of what ``media`` says of it as JSON); of samples (sequences, rows); of values that travel with samples (whose, names, values)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some samples as arrays by name, the names of their values, and rows that gave none."""

    arrays: Mapping[str, Array]
    names: tuple[str, ...]
    dropped: tuple[Dropped, ...]

    @classmethod
    def of(cls, items: Iterable[Sample | Dropped]) -> Chunk:
        """Lay samples out."""
        import numpy as np

        samples = [item for item in items if isinstance(item, Sample)]
        dropped = tuple(item for item in items if isinstance(item, Dropped))
        sequences = [sequence for sample in samples for sequence in sample.sequences]
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
        names = tuple(sorted({name for sample in samples for name in sample.values}))
        values = [
            (index, names.index(name), float(value))
            for index, sample in enumerate(samples)
            for name, value in sample.values.items()
        ]
        media = [_media_text(sequence) for sequence in sequences]
        arrays = {
            "ids": np.fromiter((i for s in sequences for i in s.input_ids), np.int32),
            "media_sizes": np.array([len(text) for text in media]),
            "media": np.frombuffer(b"".join(media), np.uint8),
            **_runs([sequence.loss_weights for sequence in sequences], lengths),
            "lengths": lengths,
            "sequences": np.array([len(sample.sequences) for sample in samples]),
            "rows": np.array([sample.row for sample in samples]),
            "value_samples": np.array([index for index, _, _ in values]),
            "value_names": np.array([name for _, name, _ in values]),
            "values": np.array([value for _, _, value in values]),
        }
        return cls(
            {name: arrays[name].astype(dtype, copy=False) for name, dtype in DTYPES.items()},
            names,
            dropped,
        )


def _media_text(tokens: Tokens) -> bytes:
    if not tokens.media:
        return b""
    items = [(item.kind, item.source, item.start, item.length) for item in tokens.media]
    return json.dumps(items).encode()


def _read_media(text: bytes) -> tuple[Medium, ...]:
    return tuple(Medium(*item) for item in json.loads(text)) if text else ()


def _runs(weights: Sequence[Sequence[float]], lengths: Array) -> dict[str, Array]:
    """Find the runs of equal weights, which never cross from one sequence into the next."""
    import numpy as np

    flat = np.fromiter((w for part in weights for w in part), np.float64)
    ends = np.cumsum(lengths, dtype=np.int64)
    begins = ends - lengths
    starts_run = np.ones(len(flat), dtype=bool)
    starts_run[1:] = flat[1:] != flat[:-1]
    starts_run[begins[lengths > 0]] = True
    starts = np.flatnonzero(starts_run)
    learned = flat != 0
    learned[begins[lengths > 0]] = False
    before = np.concatenate([[0], np.cumsum(learned)])
    return {
        "run_lengths": np.diff(np.append(starts, len(flat))),
        "run_weights": flat[starts],
        "runs": np.searchsorted(starts, ends) - np.searchsorted(starts, begins),
        "trained": before[ends] - before[begins],
    }


class StoredSamples(Sequence[Sample]):
    """Samples made from arrays when they are asked for.

    Args:
        arrays: those of ``DTYPES``, in memory or mapped.
        names: of the values that travel with samples.
        directory: where the arrays are mapped from; another process then maps them anew instead of
            getting a copy.
    """

    def __init__(
        self, arrays: Mapping[str, Array], names: Sequence[str] = (), directory: Path | None = None
    ) -> None:
        self._arrays, self._names, self._directory = arrays, tuple(names), directory

    def __reduce__(self) -> tuple[Any, ...]:
        if self._directory is not None:
            from ft_data.encoded_files import open_samples

            return open_samples, (self._directory,)
        return StoredSamples, (dict(self._arrays), self._names)

    def __len__(self) -> int:
        return len(self._arrays["rows"])

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(len(self)))]
        return self._sample(range(len(self))[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def rows(self) -> Array:
        """The row that each sample was made from."""
        return self._arrays["rows"]

    @cached_property
    def lengths(self) -> Array:
        """Tokens of each sample, all its sequences together."""
        return self._per_sample("lengths")

    @cached_property
    def trained(self) -> Array:
        """Tokens of each sample that carry loss."""
        return self._per_sample("trained")

    @property
    def sequences(self) -> Array:
        """Sequences of each sample."""
        return self._arrays["sequences"]

    def column(self, name: str) -> Array:
        """Return a value that travels with samples, of each sample; 0 where a sample has none."""
        import numpy as np

        found = np.zeros(len(self), dtype=np.float64)
        if name in self._names:
            own = self._arrays["value_names"] == self._names.index(name)
            found[self._arrays["value_samples"][own]] = self._arrays["values"][own]
        return found

    @cached_property
    def _sequence_ends(self) -> Array:
        return _ends(self._arrays["sequences"])

    @cached_property
    def _token_ends(self) -> Array:
        return _ends(self._arrays["lengths"])

    @cached_property
    def _media_ends(self) -> Array:
        return _ends(self._arrays["media_sizes"])

    @cached_property
    def _run_ends(self) -> Array:
        return _ends(self._arrays["runs"])

    def _per_sample(self, name: str) -> Array:
        import numpy as np

        before = np.concatenate([[0], np.cumsum(self._arrays[name], dtype=np.int64)])
        ends = self._sequence_ends
        return np.asarray(before[ends[1:]] - before[ends[:-1]])

    def _sample(self, index: int) -> Sample:
        start, end = self._sequence_ends[index : index + 2].tolist()
        sequences = tuple(self._tokens(number) for number in range(start, end))
        return Sample(sequences, int(self._arrays["rows"][index]), self._values(index))

    def _tokens(self, number: int) -> Tokens:
        start, end = self._token_ends[number : number + 2].tolist()
        first, last = self._run_ends[number : number + 2].tolist()
        weights: list[float] = []
        lengths = self._arrays["run_lengths"][first:last].tolist()
        for length, weight in zip(
            lengths, self._arrays["run_weights"][first:last].tolist(), strict=True
        ):
            weights += [weight] * length
        media: tuple[Medium, ...] = ()
        if len(self._arrays["media"]):
            begin, stop = self._media_ends[number : number + 2].tolist()
            media = _read_media(self._arrays["media"][begin:stop].tobytes())
        return Tokens(self._arrays["ids"][start:end].tolist(), weights, media)

    def _values(self, index: int) -> dict[str, float]:
        owners = self._arrays["value_samples"]
        if not len(owners):
            return {}
        first, last = owners.searchsorted([index, index + 1]).tolist()
        names = self._arrays["value_names"][first:last].tolist()
        values = self._arrays["values"][first:last].tolist()
        return {self._names[name]: value for name, value in zip(names, values, strict=True)}


def _ends(counts: Array) -> Array:
    """Return where each item begins among all parts, and where the last one ends."""
    import numpy as np

    ends = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


class ArrayCollector:
    """Gathers chunks in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Array]] = {name: [] for name in DTYPES}
        self.numbering = Numbering()
        self.dropped: list[Dropped] = []

    def add(self, chunk: Chunk, first_row: int) -> None:
        """Append a chunk whose rows begin with this one."""
        for name, array in self.numbering.renumber(chunk, first_row).items():
            self._parts[name].append(array)
        self.dropped += shifted(chunk.dropped, first_row)

    def samples(self) -> StoredSamples:
        """Return all of them."""
        import numpy as np

        arrays = {
            name: np.concatenate(parts) if parts else np.zeros(0, DTYPES[name])
            for name, parts in self._parts.items()
        }
        return StoredSamples(arrays, self.numbering.names)


class Numbering:
    """Turns the numbers inside a chunk into numbers of the whole."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.samples = 0

    def renumber(self, chunk: Chunk, first_row: int) -> dict[str, Array]:
        """Return the chunk's arrays for their place behind all chunks before."""
        import numpy as np

        self.names += [name for name in chunk.names if name not in self.names]
        places = np.array([self.names.index(name) for name in chunk.names], dtype=np.int32)
        moved = dict(chunk.arrays)
        moved["rows"] = moved["rows"] + first_row
        moved["value_samples"] = moved["value_samples"] + self.samples
        moved["value_names"] = places[moved["value_names"]]
        self.samples += len(moved["rows"])
        return moved


def shifted(dropped: Iterable[Dropped], first_row: int) -> list[Dropped]:
    """Return drops of a chunk as drops of the whole."""
    return [Dropped(d.row + first_row, d.reason, d.detail, d.source) for d in dropped]
