"""Encoded rows on disk: a directory of flat arrays and JSON, nothing pickled, there whole or not at all.

Arrays are written while rows are encoded and mapped when they are read, so neither holds them in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from ft_core.errors import Place
from ft_core.samples import Dropped
from ft_data.encoded_arrays import DTYPES, Chunk, Numbering, StoredSamples, shifted

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 4
"""Is raised whenever files written before can't be read any more."""

_FACTS, _DROPPED = "facts.json", "dropped.jsonl"
_BLOCK = 1 << 20
_DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""What reading JSON and mapping arrays raise where some bytes are wrong."""


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """What a directory of encoded rows holds.

    Attributes:
        samples: mapped, in the order of their rows.
        dropped: rows that gave none.
        rows: how many rows there were.
    """

    samples: StoredSamples
    dropped: tuple[Dropped, ...]
    rows: int


class EncodedWriter:
    """Writes encoded rows into a directory that appears by rename when all of them are there.

    Only one process may write the same directory at a time. What a killed one left behind is removed by
    the next.

    Args:
        target: the directory to be.

    Raises:
        OSError: it can't be written, here and in all methods.
    """

    def __init__(self, target: Path) -> None:
        self._target, self._numbering = target, Numbering()
        self._rows = self._drops = 0
        self._directory = target.with_name(f".{target.name}.partial")
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {
            name: (self._directory / file_name(name)).open("wb") for name in DTYPES
        }
        self._files[_DROPPED] = (self._directory / _DROPPED).open("wb")
        self._checksums = dict.fromkeys(self._files, 0)

    def __enter__(self) -> EncodedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def add(self, chunk: Chunk, rows: int) -> None:
        """Append the samples of the next rows, which are so many."""
        for name, array in self._numbering.renumber(chunk, self._rows).items():
            self._write(name, array.astype(DTYPES[name], copy=False).tobytes())
        for item in shifted(chunk.dropped, self._rows):
            self._write(_DROPPED, json.dumps(asdict(item)).encode() + b"\n")
            self._drops += 1
        self._rows += rows

    def _write(self, name: str, data: bytes) -> None:
        self._files[name].write(data)
        self._checksums[name] = zlib.crc32(data, self._checksums[name])

    def finish(self) -> None:
        """Make the directory appear."""
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
        facts = {
            "format": FORMAT,
            "rows": self._rows,
            "dropped": self._drops,
            "names": self._numbering.names,
            "files": {name: [sizes[name], self._checksums[name]] for name in sizes},
        }
        text = json.dumps(facts, sort_keys=True).encode()
        with (self._directory / _FACTS).open("wb") as file:
            file.write(f"{zlib.crc32(text):08x}".encode() + text)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(self._target, ignore_errors=True)
        self._directory.rename(self._target)


def read_encoded(directory: Path) -> EncodedFile | None:
    """Open what an ``EncodedWriter`` wrote; ``None`` if there is no such directory or it is damaged."""
    if not directory.is_dir():
        return None
    try:
        facts = _facts(directory)
        if facts is None or not all(
            _is_whole(directory / file_name(name), *facts["files"][name])
            for name in (*DTYPES, _DROPPED)
        ):
            return None
        lines = (directory / _DROPPED).read_bytes().splitlines()
        dropped = tuple(_dropped(json.loads(line)) for line in lines)
        return EncodedFile(_mapped(directory, facts["names"]), dropped, facts["rows"])
    except _DAMAGED:
        return None


def open_samples(directory: Path) -> StoredSamples:
    """Map the samples of a directory that another process has checked."""
    facts = _facts(directory)
    if facts is None:
        raise FileNotFoundError(f"{directory}: encoded rows were removed while they are used")
    return _mapped(directory, facts["names"])


def file_name(array: str) -> str:
    """Return the name of an array's file."""
    return array if array == _DROPPED else f"{array}.bin"


def _facts(directory: Path) -> dict[str, Any] | None:
    text = (directory / _FACTS).read_bytes()
    if f"{zlib.crc32(text[8:]):08x}".encode() != text[:8]:
        return None
    facts: dict[str, Any] = json.loads(text[8:])
    return facts if facts["format"] == FORMAT else None


def _is_whole(file: Path, size: int, checksum: int) -> bool:
    if file.stat().st_size != size:
        return False
    found = 0
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            found = zlib.crc32(block, found)
    return found == checksum


def _mapped(directory: Path, names: Iterable[str]) -> StoredSamples:
    arrays = {name: _map(directory / file_name(name), dtype) for name, dtype in DTYPES.items()}
    return StoredSamples(arrays, list(names), directory)


def _map(file: Path, dtype: str) -> NDArray[Any]:
    import numpy as np

    if file.stat().st_size == 0:  # nothing can't be mapped
        return np.zeros(0, dtype)
    return np.memmap(file, dtype=dtype, mode="r")


def _dropped(data: dict[str, Any]) -> Dropped:
    source = data.pop("source")
    return Dropped(**data, source=None if source is None else Place(**source))
