"""Which columns of a row its reader looked at, and so which say nothing of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ft_data.formats.shape import Row
from ft_data.formats.shared import is_weight


class WatchedRow(Mapping[str, Any]):
    """A row that remembers which of its columns had their values taken.

    Args:
        row: the row.
    """

    __slots__ = ("_row", "_taken")

    def __init__(self, row: Row) -> None:
        self._row = row
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self._row[name]
        self._taken.add(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a column's value, or the default where there is none."""
        self._taken.add(name)
        return self._row.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def aside(self) -> dict[str, Any]:
        """Return the columns with values that nobody took, and a ``weight`` or ``margin`` that is none."""
        return {
            name: value
            for name, value in self._row.items()
            if value is not None
            and (name not in self._taken or (name in ("weight", "margin") and not is_weight(value)))
        }
