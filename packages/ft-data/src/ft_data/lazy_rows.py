"""Rows that are encoded each time they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from ft_core.examples import Example
from ft_core.recipe import Encoder
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template


@dataclass(frozen=True, slots=True)
class LazyRows(Sequence[Sequence[Sample | Dropped]]):
    """Rows that are encoded each time they are asked for.

    A row that gives no sample comes back as its drop and is counted by whoever trains; it is never
    replaced by another.
    """

    examples: Sequence[Example]
    recipe: Encoder
    template: Template

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Sequence[Sample | Dropped]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[Sample | Dropped]]: ...

    def __getitem__(
        self, index: int | slice
    ) -> Sequence[Sample | Dropped] | Sequence[Sequence[Sample | Dropped]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        encoded = self.recipe.encode([self.examples[row]], self.template)
        return [replace(item, row=row) for item in encoded]
