"""Rows of a source one after the other, for sources that are too large to be held in memory."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from ft_core.examples import Example
from ft_data.arguments import CheckStrategy
from ft_data.file_kinds.rows import RawRow, Skipped, Wanted, only
from ft_data.finding import find_rows
from ft_data.identity import Identity
from ft_data.reading import RowReader
from ft_data.recognition import recognise
from ft_data.registry import renamed
from ft_data.report import RowFault
from ft_data.sources import Source, format_source, parse_source


@dataclass(frozen=True, slots=True)
class StreamedRow:
    """One row of a stream.

    Attributes:
        position: its place among all rows of the source, from 0; rows that are left out have one too, so that a
            reader who remembers the last position goes on with the next.
        row: the row, or why it is left out.
    """

    position: int
    row: Example | RowFault


@dataclass(frozen=True, slots=True)
class RowStream:
    """The rows of one source, read each time they are asked for; hold one of them at a time.

    Attributes:
        source: where they come from.
        reader: reads each of them; its ``shape`` says which shape they have and why.
        notes: what a person should know about where they come from.
        identity: what stands for placeholders.
    """

    source: Source
    reader: RowReader
    notes: tuple[str, ...] = ()
    identity: Identity | None = None

    def rows(self, start: int = 0, step: int = 1) -> Iterator[StreamedRow]:
        """Read the rows at the positions ``start``, ``start + step``, ``start + 2 * step``, ….

        So worker ``i`` of ``n`` takes ``rows(i, n)``, and one that stopped after position ``p`` goes on with
        ``rows(p + n, n)``. What isn't read is passed over cheaply: lines are counted but not parsed, batches of
        tables not turned into rows.

        With ``#count`` the rows end after ``count`` positions. A source with fewer rows begins again, so the
        position says how many rows came before, not where in the file a row is; ``Example.source`` does that.

        Raises:
            DataError: a file can't be read, or a row breaks a rule where that stops.
        """
        count = self.source.count
        before = 0
        while count is None or before < count:
            passed = yield from self._once(before, start, step)
            if count is None or not passed:
                return
            before += passed

    def _once(self, before: int, start: int, step: int) -> Generator[StreamedRow, None, int]:
        """Read the source once; return how many rows it has."""

        def wanted(position: int) -> bool:
            return before + position >= start and not (before + position - start) % step

        position = -1
        for position, (row, origin) in enumerate(self._rows(wanted)):
            if self.source.count is not None and before + position >= self.source.count:
                break
            if not isinstance(row, Skipped):
                yield StreamedRow(before + position, self.reader.read(row, origin))
        return position + 1

    def _rows(self, wanted: Wanted) -> Iterable[RawRow]:
        shape = self.reader.shape
        if not shape.threads:
            return find_rows(self.source, self.identity, wanted).rows
        # Several rows become one, so positions are known after it.
        return only(shape.together(find_rows(self.source, self.identity).rows), wanted)


def stream(
    source: str | Source,
    *,
    check: CheckStrategy = "none",
    require_answer: bool = True,
    identity: Identity | None = None,
) -> RowStream:
    """Open a source for reading its rows one after the other.

    Files of every kind, compressed or not, directories, globs, addresses, registered names and hub ids are read
    so; the files of a hub are fetched before the first row. Only the first rows are read here, to recognise their
    shape. For several sources open several streams: ``[stream(one) for one in parse_sources(["a#9", "b"])]``.

    Args:
        source: as for ``load``, but ``#count`` takes the first rows instead of a sample.
        check: as for ``load``.
        require_answer: as for ``load``.
        identity: as for ``load``.

    Raises:
        DataError: a file is missing, empty or invalid, or the first rows have no shape that is read.
        UsageError: an unknown dataset.
        HubError: a hub dataset can't be fetched.
    """
    given = parse_source(source) if isinstance(source, str) else source
    chosen = renamed(given) or given
    found = find_rows(chosen, identity)
    shape, _ = recognise(found.rows, named=found.named)
    notes = (*found.notes, *shape.notes)
    if chosen is not given:
        notes = (
            f"{format_source(given)} is a former name; use {format_source(chosen)}",
            *notes,
        )
    stops = check == "error" and not found.expects_bad_rows
    return RowStream(chosen, RowReader(shape, stops, require_answer), notes, identity)
