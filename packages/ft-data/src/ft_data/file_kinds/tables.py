"""Columnar files: Parquet and Arrow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from ft_core.examples import Source as Origin
from ft_data.file_kinds.rows import SKIPPED, RawRow, Wanted, everything, fault
from ft_data.storage import DataFile

_BATCH = 1024


def read_parquet(stream: BinaryIO, file: DataFile, wanted: Wanted = everything) -> Iterator[RawRow]:
    """Read a Parquet file in batches.

    Raises:
        DataError: it is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(_seekable(stream, file)) as table:
            yield from _rows(table.iter_batches(batch_size=_BATCH), file.shown, wanted)
    except pyarrow.ArrowException as error:
        raise fault(f"invalid parquet: {_first_line(error)}", file.shown, "invalid_parquet") from (
            error
        )


def read_arrow(stream: BinaryIO, file: DataFile, wanted: Wanted = everything) -> Iterator[RawRow]:
    """Read an Arrow file, or the stream of batches that some libraries write into ``.arrow`` files.

    Raises:
        DataError: it is none.
    """
    import pyarrow

    source = _seekable(stream, file)
    begin = source.read(6)
    source.seek(0)
    try:
        if begin == b"ARROW1":
            with pyarrow.ipc.open_file(source) as table:
                batches = (table.get_batch(index) for index in range(table.num_record_batches))
                yield from _rows(batches, file.shown, wanted)
        else:
            with pyarrow.ipc.open_stream(source) as table:
                yield from _rows(iter(table), file.shown, wanted)
    except pyarrow.ArrowException as error:
        raise fault(f"invalid arrow: {_first_line(error)}", file.shown, "invalid_arrow") from error


def _rows(batches: Iterator[Any], shown: str, wanted: Wanted) -> Iterator[RawRow]:
    import pyarrow

    begin = 0
    for batch in batches:
        taken = [place for place in range(batch.num_rows) if wanted(begin + place)]
        numbers = [field.name for field in batch.schema if pyarrow.types.is_floating(field.type)]
        whole = len(taken) == batch.num_rows
        rows = iter((batch if whole else batch.take(pyarrow.array(taken, "int64"))).to_pylist())
        chosen = set(taken)
        for place in range(batch.num_rows):
            if place not in chosen:
                yield SKIPPED
                continue
            row = next(rows)
            for name in numbers:
                if row[name] != row[name]:  # NaN is how tables write a missing value
                    row[name] = None
            yield row, Origin(shown, begin + place + 1)
        begin += batch.num_rows


def _seekable(stream: BinaryIO, file: DataFile) -> BinaryIO:
    direct = file.compression is None and stream.seekable()
    return stream if direct else io.BytesIO(stream.read())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
