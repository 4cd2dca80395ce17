"""Encoded rows: token ids with a loss weight for each, and rows that were left out with their reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ft_core.examples import Source

MediumKind = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True)
class Medium:
    """An image, video or audio in a token sequence.

    Attributes:
        kind: what it is.
        source: its path, address or data URI.
        start: index of the first token that stands for it.
        length: how many tokens stand for it.
    """

    kind: MediumKind
    source: str
    start: int = 0
    length: int = 0

    @property
    def end(self) -> int:
        """Index after its last token."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Tokens:
    """One token sequence.

    Attributes:
        input_ids: token ids, length T.
        loss_weights: length T; ``loss_weights[i]`` scales the loss of predicting ``input_ids[i]`` from
            the tokens before it, 0 where nothing is learned. Position 0 has no predecessor in its own
            sequence and is never trained.
        media: what is to be seen or heard in it, in order.
    """

    input_ids: Sequence[int]
    loss_weights: Sequence[float]
    media: tuple[Medium, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained(self) -> int:
        """How many tokens carry loss."""
        return sum(map(bool, self.loss_weights[1:]))

    def weighed(self, weight: float) -> Tokens:
        """Return the sequence with all its loss weights times a weight."""
        if weight == 1:
            return self
        return replace(self, loss_weights=[item * weight for item in self.loss_weights])


@dataclass(frozen=True, slots=True)
class Sample:
    """What a recipe trains on: one sequence for sft and pt, chosen and rejected for a preference.

    Attributes:
        sequences: the token sequences of this sample.
        row: index of the row it was made from, in the loaded rows.
        values: numbers that travel with the sample, such as ``label``.
    """

    sequences: tuple[Tokens, ...]
    row: int = 0
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens in all sequences together."""
        return sum(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is not trained, and why.

    Attributes:
        row: index of the row in the loaded rows.
        reason: a short machine-readable name, such as ``too_long``; counts are kept by it.
        detail: the sentence shown to a person.
        source: the row's place.
    """

    row: int
    reason: str
    detail: str
    source: Source | None = None
