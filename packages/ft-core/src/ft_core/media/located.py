"""Where a row's media lie, and what errors about them name: the row's place, and the field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_core.media.faults import MediaError
from ft_core.media.marks import Place
from ft_core.media.sources import beside
from ft_core.templates.conversation import fail


def resolved(example: Example, folder: Path | None) -> Example:
    """Return a row whose relative paths, where they lead nowhere from here, lead on from the file it is in."""

    def found(items: Sequence[str]) -> tuple[str, ...]:
        return tuple(beside(item, folder) for item in items)

    return replace(
        example,
        images=found(example.images),
        videos=found(example.videos),
        audios=found(example.audios),
    )


@contextmanager
def at_row(example: Example) -> Iterator[None]:
    """Give errors the place of the row that causes them."""
    try:
        yield
    except DataError as error:
        if example.source is None or error.place is not None:
            raise
        field = getattr(error, "field", None) or "messages"
        fail(str(error), rule=error.rule, source=example.source, field=field)


@contextmanager
def naming(place: Place) -> Iterator[None]:
    """Give errors the field that a medium stands in."""
    try:
        yield
    except DataError as error:
        raise _FieldError(error, place) from error


class _FieldError(DataError):
    """A medium of a row that can't be used, before the row's own place is known."""

    def __init__(self, error: DataError, place: Place) -> None:
        named = str(error) if isinstance(error, MediaError) else f"{place.source}: {error}"
        super().__init__(named, rule=error.rule)
        self.field = place.field
