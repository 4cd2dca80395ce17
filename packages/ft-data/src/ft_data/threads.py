"""Conversations of which each row is one message, tied to the message that it answers, as in Open Assistant's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from ft_core.errors import DataError
from ft_core.examples import Source as Origin
from ft_data.files import RawRow
from ft_data.formats import Row

NOTE: Final = (
    "each row is a message of a tree of answers; of every tree the thread of the best ranked answers is read, "
    "one row for each tree"
)
_NEEDED: Final = frozenset({"message_id", "parent_id", "message_tree_id", "text", "role"})


def are_messages_of_trees(rows: Sequence[Row]) -> bool:
    """Whether rows have the columns of Open Assistant's (Köpf et al. 2023): one message each."""
    return bool(rows) and all(row.keys() >= _NEEDED for row in rows)


def best_threads(rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """Make one row of each tree of messages that follow each other: its thread of best ranked answers."""
    for tree, group in groupby(rows, key=_tree):
        members = list(group)
        if tree is None:
            yield from members
        else:
            yield _thread(members)


def _tree(item: RawRow) -> object:
    row = item[0]
    tree = row.get("message_tree_id") if isinstance(row, Mapping) else None
    return tree if isinstance(tree, (str, int)) else None


def _thread(members: Sequence[RawRow]) -> RawRow:
    answers: dict[object, list[Row]] = {}
    for row, _ in members:
        if not row.get("deleted"):
            answers.setdefault(row.get("parent_id"), []).append(row)
    origin: Origin = members[0][1]
    roots = answers.get(None, [])
    if len(roots) != 1:
        return _fault(f"its tree begins with {len(roots)} messages instead of one", origin), origin
    thread = [roots[0]]
    while found := answers.pop(thread[-1].get("message_id"), None):
        thread.append(min(found, key=_rank))
    turns = [{"role": row.get("role"), "content": row.get("text")} for row in thread]
    beside: dict[str, Any] = {
        name: roots[0][name] for name in ("message_tree_id", "lang") if name in roots[0]
    }
    return {"messages": turns, **beside}, origin


def _rank(row: Row) -> float:
    rank = row.get("rank")
    return float(rank) if isinstance(rank, (int, float)) else float("inf")


def _fault(message: str, origin: Origin) -> DataError:
    return DataError(message, path=origin.path, line=origin.line, rule="broken_tree")
