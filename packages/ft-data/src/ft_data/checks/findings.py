"""What is found in rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ft_core.examples import Example, Message
from ft_data.report import FIRST


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about rows that a person should look at.

    Attributes:
        kind: a short machine-readable name, such as ``duplicate``.
        detail: the sentence shown to a person.
        places: the rows, as shown to a person.
    """

    kind: str
    detail: str
    places: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the sentence and the first places."""
        shown = [f"  {place}" for place in self.places[:FIRST]]
        more = len(self.places) - len(shown)
        return [
            f"{self.kind}: {self.detail}",
            *shown,
            *([f"  and {more:,} more"] if more > 0 else []),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, with all places."""
        return {
            "kind": self.kind,
            "detail": self.detail,
            "count": len(self.places),
            "places": list(self.places),
        }


def found(kind: str, detail: str, places: list[str]) -> list[Finding]:
    """Return the finding about these places; nothing where there are none."""
    return [Finding(kind, f"{len(places):,} {detail}", tuple(places))] if places else []


def place_of(example: Example, index: int) -> str:
    """Return a row's place as shown to a person."""
    return f"row {index}" if example.source is None else str(example.source)


def all_text(example: Example) -> str:
    """Return what a row says, turns after each other."""
    return example.text or "".join(message.text for message in example.messages)


def answers_of(example: Example) -> Iterator[Message]:
    """Give the assistant's turns of a row, rejected ones too."""
    for message in (*example.messages, *(example.rejected or ())):
        if message.role == "assistant":
            yield message
