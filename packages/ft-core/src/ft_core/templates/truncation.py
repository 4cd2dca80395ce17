"""What happens to rows that are too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from ft_core.errors import UsageError, suggest
from ft_core.samples import Tokens

TruncationStrategy = Literal["delete", "truncation_left", "right", "split"]
"""The names ``truncate`` knows."""


def truncate(tokens: Tokens, max_length: int, strategy: str) -> list[Tokens]:
    """Return what is left of a row in pieces of at most ``max_length`` tokens.

    Args:
        tokens: the encoded row.
        max_length: in tokens, at least 2; -1 sets no limit.
        strategy: what happens to a longer row. ``delete`` leaves nothing of it; ``truncation_left`` keeps its
            last tokens and ``right`` its first ones, so that it stops without an end; ``split`` cuts it
            into several pieces. A piece begins with the last token of the one before it, which it sees
            and does not learn again: every token but the row's first is learned exactly once. No image, video or
            audio is cut through: a cut that would is made at its edge.

    Raises:
        UsageError: there is no such strategy.
    """
    if strategy not in _CUTS:
        raise UsageError(
            f"--truncation_strategy {strategy}: use one of {', '.join(_CUTS)}.{suggest(strategy, _CUTS)}"
        )
    if max_length == -1 or len(tokens) <= max_length:
        return [tokens]
    return _CUTS[strategy](tokens, max_length)


def _delete(tokens: Tokens, max_length: int) -> list[Tokens]:
    return []


def _left(tokens: Tokens, max_length: int) -> list[Tokens]:
    start = _outside(tokens, len(tokens) - max_length, after=True)
    return [_slice(tokens, start, len(tokens))]


def _right(tokens: Tokens, max_length: int) -> list[Tokens]:
    return [_slice(tokens, 0, _outside(tokens, max_length, after=False))]


def _split(tokens: Tokens, max_length: int) -> list[Tokens]:
    pieces: list[Tokens] = []
    start = 0
    while start < len(tokens) - 1:
        end = _outside(tokens, min(start + max_length, len(tokens)), after=False)
        if end <= start + 1:  # a medium that is longer than a piece
            start = next(item.end for item in tokens.media if item.end > start + 1)
            continue
        pieces.append(_slice(tokens, start, end))
        start = end - 1 if _outside(tokens, end - 1, after=False) == end - 1 else end
    return pieces


def _outside(tokens: Tokens, place: int, *, after: bool) -> int:
    """Return a place to cut at: this one, or the edge of the medium that it would cut through."""
    for item in tokens.media:
        if item.start < place < item.end:
            return item.end if after else item.start
    return place


def _slice(tokens: Tokens, start: int, end: int) -> Tokens:
    media = tuple(
        replace(item, start=item.start - start)
        for item in tokens.media
        if start <= item.start and item.end <= end
    )
    # The first token that is left has lost its predecessor.
    weights = [0.0, *tokens.loss_weights[start + 1 : end]][: end - start]
    return Tokens(tokens.input_ids[start:end], weights, media)


_CUTS: Mapping[str, Callable[[Tokens, int], list[Tokens]]] = {
    "delete": _delete,
    "truncation_left": _left,
    "right": _right,
    "split": _split,
}
