"""Forward passes over a batch of rows: prompts on their own first, then one token for all rows a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.batch.cache import ColumnCache, forward_parameters
from ft_serve.engines.pt.batch.prefixes import Prefix

PADDING_ID = 0
"""Fed at masked places; any valid id would do."""


class Prefill:
    """Prompts on their way through the model, in pieces, aligned at their ends.

    Args:
        adapters: the model with its adapters.
        prompts: token ids of each row; several rows are run in one piece only if ``chunk`` holds them.
        names: the adapter of each row.
        chunk: columns of one piece.
        prefixes: for each row what is known of its beginning; columns known of all rows aren't run again.
    """

    def __init__(
        self,
        adapters: RowAdapters,
        prompts: Sequence[Sequence[int]],
        names: Sequence[str | None],
        chunk: int,
        prefixes: Sequence[Prefix | None] = (),
    ) -> None:
        model = adapters.model
        self.cache = ColumnCache(model.config.get_text_config())
        self.cache.open([len(prompt) for prompt in prompts])
        self.width = self.cache.column_capacity
        self.chunk = chunk
        self._adapters = adapters
        self._names = names
        padded = [[PADDING_ID] * (self.width - len(prompt)) + list(prompt) for prompt in prompts]
        self._ids = torch.tensor(padded, device=model.device)
        self.known = [0] * len(prompts)
        if any(prefixes):
            self._begin_with(prefixes)

    def _begin_with(self, prefixes: Sequence[Prefix | None]) -> None:
        cache = self.cache
        lengths = [0 if prefix is None else prefix.length for prefix in prefixes]
        begin = min(start + length for start, length in zip(cache.starts, lengths, strict=True))
        for row, prefix in enumerate(prefixes):
            if prefix is not None and begin > cache.starts[row]:
                cache.fill(row, prefix.layers, begin)
                self.known[row] = begin - cache.starts[row]
        cache.advance(begin)

    def advance(self) -> torch.Tensor | None:
        """Run the next piece.

        Returns:
            Logits of the token after each prompt, shape (rows, vocabulary), once all pieces are through.
        """
        begin = self.cache.end
        end = min(self.width, begin + self.chunk)
        logits = _forward(self._adapters, self.cache, self._ids[:, begin:end], self._names)
        return logits if end == self.width else None


class Rows:
    """The rows that generate, in the order of their admission.

    Except that a leaving row's place is taken by the last one.

    Args:
        adapters: the model with its adapters.
    """

    def __init__(self, adapters: RowAdapters) -> None:
        self._adapters = adapters
        self._names: list[str | None] = []
        self.cache = ColumnCache(adapters.model.config.get_text_config())

    def __len__(self) -> int:
        return self.cache.rows

    @property
    def columns(self) -> int:
        """Columns in use: the longest row's tokens, or more where rows of another age left a gap."""
        return self.cache.columns

    def admit(self, prefill: Prefill, row: int, name: str | None) -> None:
        """Take a row of finished prompts as the last row."""
        self.cache.admit(prefill.cache, row)
        self._names.append(name)

    def remove(self, row: int) -> None:
        """Drop a row; the last row takes its place."""
        self.cache.remove(row)
        self._names[row] = self._names[-1]
        self._names.pop()

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed each row its newest token and return the logits of the next, shape (rows, vocabulary)."""
        self.cache.reserve(1)
        ids = torch.tensor(tokens, device=self._adapters.model.device)[:, None]
        return _forward(self._adapters, self.cache, ids, self._names)


def _forward(
    adapters: RowAdapters, cache: ColumnCache, ids: torch.Tensor, names: Sequence[str | None]
) -> torch.Tensor:
    """Run (rows, new columns) ids behind the cache; return the last column's logits."""
    model = adapters.model
    new = ids.shape[1]
    starts = torch.tensor(cache.starts, device=ids.device)[:, None] - cache.base
    columns = torch.arange(cache.columns + new, device=ids.device)
    positions = (columns[-new:] - starts).clamp(min=0)
    padded = cache.starts.count(cache.base) < cache.rows
    adapters.use(names)
    output = model(
        input_ids=ids,
        attention_mask=(columns >= starts).long() if padded else None,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        **({"logits_to_keep": 1} if "logits_to_keep" in forward_parameters(model) else {}),
    )
    cache.advance(new)
    logits: torch.Tensor = output.logits[:, -1].float()
    return logits
