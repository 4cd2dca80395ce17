"""The shapes of rows that are understood without being told, and how one is recognised."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ft_core.errors import DataError
from ft_core.examples import Example, Source
from ft_data.formats.characters import check_characters
from ft_data.formats.choice import LABELLED, PREFERENCE
from ft_data.formats.conversation import (
    CONVERSATIONS,
    DIALOGUE,
    MESSAGES,
    SHAREGPT,
    names_speakers,
)
from ft_data.formats.question import ALPACA, ANSWERS, PROMPT, QUERY, QUESTION, RESPONSE, TEXT
from ft_data.formats.shape import Detection, Format, Row, kind_of
from ft_data.formats.shared import example
from ft_data.formats.token_ids import TOKEN_IDS
from ft_data.formats.watched import WatchedRow

__all__ = [
    "COMPLETE",
    "DIALOGUE",
    "FORMATS",
    "LABELLED",
    "PLAIN",
    "PREFERENCE",
    "QUESTION",
    "Detection",
    "Format",
    "Row",
    "find",
    "fits",
    "kind_of",
    "lacks",
    "read",
    "undetected",
]

FORMATS: tuple[Format, ...] = (
    TOKEN_IDS,
    PREFERENCE,
    LABELLED,
    CONVERSATIONS,
    MESSAGES,
    SHAREGPT,
    QUERY,
    ALPACA,
    PROMPT,
    QUESTION,
    RESPONSE,
    TEXT,
    DIALOGUE,
)
"""In the order in which they are tried where several fit as well."""

PLAIN = (TEXT, RESPONSE)
"""Those of text to continue."""

COMPLETE = 2
"""How well a conversation fits whose columns are all those of one shape."""


def fits(form: Format, row: Row) -> int:
    """Say how well a row fits a shape whose columns it has.

    Returns:
        0 for text to continue, a question without an answer, and texts that may take turns; 1 for an answer in
        another shape's column; 2 for a conversation that is complete; 3 for one that is judged; 4 for token ids.
    """
    if form is TOKEN_IDS:
        return 4
    if form in (PREFERENCE, LABELLED):
        return 3
    if form.pair is not None:
        if row.get(form.pair[1]) is not None:
            return COMPLETE
        return int(any(row.get(name) is not None for name in ANSWERS))
    return 0 if form in PLAIN or (form is DIALOGUE and not names_speakers(row)) else COMPLETE


def find(row: Row, without: Collection[Format] = ()) -> Detection | None:
    """Return the shape of a row, or ``None`` when no shape fits.

    Of several the one that fits best wins: a row with ``query``, ``instruction`` and ``output`` is alpaca.

    Args:
        row: its columns.
        without: shapes that are not considered.
    """
    best: Detection | None = None
    most = -1
    for form in FORMATS:
        if form in without or (reason := form.matches(row)) is None:
            continue
        if (fit := fits(form, row)) > most:
            best, most = Detection(form, reason), fit
            if most > COMPLETE:
                break
    return best


def undetected(row: Row) -> str:
    """Return the sentence for a row that has none of the known shapes."""
    given = ", ".join(repr(name) for name in row) or "no columns"
    shapes = "; ".join(f"{form.name} ({form.summary})" for form in FORMATS)
    return f"the columns {given} are none of the shapes that are understood: {shapes}"


def lacks(expected: Format, found: Format) -> bool:
    """Whether a row found in another shape is one of the expected shape without its judgement."""
    return expected in (PREFERENCE, LABELLED) and found not in (PREFERENCE, LABELLED, *PLAIN)


def read(form: Format, row: Row, source: Source, *, require_answer: bool = True) -> Example:
    """Read one row and check its own rules; columns that its shape doesn't have are kept in ``aside``.

    Args:
        form: the row's shape.
        row: its columns.
        source: its place.
        require_answer: whether a row without an answer breaks a rule.

    Raises:
        DataError: with place, field and rule.
    """
    watched = WatchedRow(row)
    try:
        found = form.read(watched, source)
        found.validate()
    except DataError as error:
        if require_answer or error.rule != "missing_answer":
            raise
        watched = WatchedRow(row)
        found = _unanswered(form, watched, source, error)
    check_characters(found, source)
    aside = watched.aside()
    return replace(found, aside=aside) if aside else found


def _unanswered(form: Format, row: Row, source: Source, error: DataError) -> Example:
    """Read a row that is still to be answered; ``error`` says that its answer is missing."""
    if form.prompt is not None:
        return example(form.prompt(row, source), row, source)
    if form not in (CONVERSATIONS, MESSAGES, SHAREGPT, DIALOGUE):
        raise error
    read_so_far = form.read(row, source)
    messages = (
        read_so_far.prompt if not (read_so_far.answer or "").strip() else read_so_far.messages
    )
    if not messages or messages[-1].role not in ("user", "tool"):
        raise error
    return replace(read_so_far, messages=messages)
