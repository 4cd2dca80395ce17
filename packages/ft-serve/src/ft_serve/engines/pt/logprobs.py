"""Log-probabilities of the tokens that were chosen, and of those that could have been."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ft_core.engine import TokenLogprob


class LogprobTable:
    """What the model alone thought of the next token of some rows, before penalties change the logits.

    Args:
        logits: float32, shape (rows, vocabulary).
        wanted: for each row how many of the most likely tokens are reported; ``None`` reports nothing.
    """

    def __init__(self, logits: torch.Tensor, wanted: Sequence[int | None]) -> None:
        self._wanted = {row: top for row, top in enumerate(wanted) if top is not None}
        self._places = {row: place for place, row in enumerate(self._wanted)}
        rows = list(self._wanted)
        self._table = logits[rows].log_softmax(-1) if rows else logits[:0]
        most = max(self._wanted.values(), default=0)
        values, ids = self._table.topk(most)
        self._values, self._ids = values.tolist(), ids.tolist()

    def of(self, row: int, token: int) -> TokenLogprob | None:
        """Return what is reported of a row's token."""
        if row not in self._places:
            return None
        place, top = self._places[row], self._wanted[row]
        likeliest = zip(self._ids[place][:top], self._values[place][:top], strict=True)
        return TokenLogprob(token, float(self._table[place, token]), tuple(likeliest))
