"""Texts that quantization looks at: rows joined, and cut into pieces of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ft_core.errors import UsageError

_FEWEST = 16
"""Texts that should come out of few rows, where a person didn't say how long they are."""

_SHORTEST = 64
"""Tokens of the shortest text that is cut without being asked for."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a method looks at.

    Attributes:
        texts: token ids, all of ``length``.
        length: of each in tokens.
        note: a sentence where it is less than was asked for, else empty.
    """

    texts: tuple[tuple[int, ...], ...]
    length: int
    note: str = ""


def cut(
    rows: Sequence[Sequence[int]], *, count: int, length: int, exact: bool, longest: int | None
) -> Calibration:
    """Join rows and cut them into texts.

    Args:
        rows: token ids of each row.
        count: most texts.
        length: tokens of a text.
        exact: whether a person said so; else texts get shorter rather than fewer than 16.
        longest: tokens that the model was made for.

    Raises:
        UsageError: the rows don't fill a single text, or a text is longer than the model can see.
    """
    ids = [token for row in rows for token in row]
    if longest is not None and length > longest:
        if exact:
            raise UsageError(
                f"--quant_seqlen {length}: the model was made for {longest} tokens; give at most that"
            )
        length = longest
    if not exact:
        length = min(length, max(_SHORTEST, len(ids) // _FEWEST))
    texts = tuple(
        tuple(ids[start : start + length])
        for start in range(0, len(ids) - length + 1, length)[:count]
    )
    if not texts:
        raise UsageError(
            f"the {len(rows):,} calibration rows have {len(ids):,} tokens together, which don't fill one text of "
            f"--quant_seqlen {length}; give more rows with --dataset, or a lower --quant_seqlen"
        )
    note = ""
    if len(texts) < count:
        note = (
            f"calibration: {len(rows):,} rows of {len(ids):,} tokens give {len(texts)} texts of {length} tokens, "
            f"fewer than --quant_n_samples {count}"
        )
    return Calibration(texts, length, note)
