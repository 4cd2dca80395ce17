"""How long rows are: extremes, histograms, and what is longer than a model will see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ft_core.examples import Example
from ft_data.checks.findings import Finding, all_text, found, place_of

FAR: Final = 20
"""A row is called short or long when it has this many times less or more text than the one in the middle."""

LONG: Final = 1000
"""Characters below which no row is called long."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many rows are how long.

    Attributes:
        unit: ``characters`` or ``tokens``.
        least, middle, most: lengths of the shortest row, of the one in the middle, and of the longest.
        bins: for each upper bound, which is a power of two, how many rows are longer than half of it and not longer
            than it.
    """

    unit: str
    least: int
    middle: int
    most: int
    bins: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, unit: str, lengths: Iterable[int]) -> Histogram:
        """Count lengths."""
        ordered = sorted(lengths)
        if not ordered:
            return cls(unit, 0, 0, 0, ())
        counts = Counter(_bound(length) for length in ordered)
        bound, last = min(counts), max(counts)
        bins = []
        while bound <= last:
            bins.append((bound, counts[bound]))
            bound *= 2
        return cls(unit, ordered[0], ordered[len(ordered) // 2], ordered[-1], tuple(bins))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "least": self.least,
            "middle": self.middle,
            "most": self.most,
            "bins": [{"up_to": bound, "rows": count} for bound, count in self.bins],
        }


def _bound(length: int) -> int:
    return 1 << max(length - 1, 0).bit_length()


def extremes(examples: Sequence[Example]) -> list[Finding]:
    """Find rows with far less or more text than usual."""
    sizes = [len(all_text(example)) for example in examples]
    if not sizes:
        return []
    middle = sorted(sizes)[len(sizes) // 2]
    short, long = [], []
    for index, (example, size) in enumerate(zip(examples, sizes, strict=True)):
        if example.input_ids is not None:
            continue
        place = f"{place_of(example, index)}: {size:,} characters"
        if size * FAR < middle:
            short.append(place)
        elif size > max(middle * FAR, LONG):
            long.append(place)
    usual = f"where {middle:,} characters are usual"
    return [
        *found("very_short", f"rows with next to no text, {usual}", short),
        *found("very_long", f"rows with very much text, {usual}", long),
    ]
