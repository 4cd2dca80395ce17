"""Rows that are encoded already: token ids with labels."""

from __future__ import annotations

from ft_core.examples import Example, Source
from ft_data.formats.shape import Format, Row, columns, fault, has, kind_of, list_in
from ft_data.formats.shared import row_weight

_LARGEST = 2**31


def _matches(row: Row) -> str | None:
    if not has(row, "input_ids"):
        return None
    return columns("input_ids", "labels") if "labels" in row else columns("input_ids")


def _read(row: Row, source: Source) -> Example:
    ids = _ids(row, "input_ids", 0, source)
    labels = _ids(row, "labels", -100, source) if has(row, "labels") else None
    if has(row, "attention_mask") and not all(
        value == 1 for value in list_in(row, "attention_mask", source)
    ):
        raise fault(
            source,
            "hides tokens; leave padding out, each row has its own length",
            "attention_mask",
            "padded",
        )
    return Example(input_ids=ids, labels=labels, weight=row_weight(row, source), source=source)


def _ids(row: Row, field: str, least: int, source: Source) -> tuple[int, ...]:
    values = list_in(row, field, source)
    for place, value in enumerate(values):
        where = f"{field}[{place}]"
        if not isinstance(value, int) or isinstance(value, bool):
            message = f"must be a whole number, but is {kind_of(value)}"
            raise fault(source, message, where, "wrong_type")
        if not least <= value < _LARGEST:
            raise fault(source, f"{value} is no token", where, "wrong_token")
    return tuple(values)


TOKEN_IDS = Format(
    "input_ids",
    "input_ids and labels: token ids of an encoded row, with -100 where nothing is learned",
    _matches,
    _read,
)
