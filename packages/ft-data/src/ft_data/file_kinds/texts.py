"""Plain text to continue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, Final

from ft_core.examples import Source as Origin
from ft_data.file_kinds.rows import SKIPPED, RawRow, Wanted, everything, lines_of
from ft_data.storage import DataFile

END_OF_TEXT: Final = "<|endoftext|>"
"""A line that holds nothing else ends a document."""


def read_text(stream: BinaryIO, file: DataFile, wanted: Wanted = everything) -> Iterator[RawRow]:
    """Read a text file as one document, or as several where lines of ``<|endoftext|>`` separate them.

    Lines are not documents of their own: they would be torn out of their paragraphs, and the model would learn
    to stop after each.
    """
    for position, (text, line) in enumerate(_documents(stream, file)):
        yield ({"text": text}, Origin(file.shown, line)) if wanted(position) else SKIPPED


def _documents(stream: BinaryIO, file: DataFile) -> Iterator[tuple[str, int]]:
    """Give each document with the number of its first line."""
    document: list[str] = []
    begin = 1
    for number, line in enumerate(chain(lines_of(stream, file.shown), [END_OF_TEXT]), start=1):
        if line.strip() != END_OF_TEXT:
            document.append(line.replace("\r\n", "\n"))
            continue
        if (text := "".join(document).removesuffix("\n")).strip():
            yield text, begin
        document, begin = [], number + 1
