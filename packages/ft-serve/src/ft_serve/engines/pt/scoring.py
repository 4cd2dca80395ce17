"""Log-probabilities of given tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch
from transformers import DynamicCache

from ft_core.engine import TokenScores
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.batch.cache import can_batch
from ft_serve.engines.pt.batch.rows import PADDING_ID

FORWARD_TOKENS = 2048
"""Tokens of one forward pass, padding included; longer sequences run in pieces of this."""

Likeliest = tuple[tuple[int, float], ...]

SOFTMAX_TOKENS = 256
"""Tokens whose logits are turned to float32 at a time."""


def score_sequences(
    adapters: RowAdapters,
    sequences: Sequence[Sequence[int]],
    *,
    top: int = 0,
    adapter: str | None = None,
) -> Generator[None, None, list[TokenScores]]:
    """Return the log-probability of every token given those before it in its sequence.

    A generator that pauses after each forward pass, so that others get their turn.

    Args:
        adapters: a causal language model with its adapters.
        sequences: token ids, each of at least one.
        top: also return this many most likely tokens in each place.
        adapter: which one to use.
    """
    results = [TokenScores(())] * len(sequences)
    for group in groups_of([len(sequence) for sequence in sequences]):
        members = [list(sequences[index]) for index in group]
        scores = yield from _score_group(adapters, members, top, adapter)
        for index, item in zip(group, scores, strict=True):
            results[index] = item
    return results


def groups_of(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Divide rows into groups of similar length that one forward pass holds."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if group and (len(group) + 1) * lengths[group[0]] > FORWARD_TOKENS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _score_group(
    adapters: RowAdapters, rows: list[list[int]], top: int, adapter: str | None
) -> Generator[None, None, list[TokenScores]]:
    # Padding goes behind the rows, where causal attention keeps it out of sight.
    model = adapters.model
    width = max(len(row) for row in rows)
    padded = [row + [PADDING_ID] * (width - len(row)) for row in rows]
    ids = torch.tensor(padded, device=model.device)
    in_pieces = width > FORWARD_TOKENS and can_batch(model)
    chunk = FORWARD_TOKENS if in_pieces else width
    cache = DynamicCache(config=model.config.get_text_config()) if in_pieces else None
    logprobs: list[list[float]] = [[0.0] for _ in rows]
    likeliest: list[list[Likeliest]] = [[()] for _ in rows]
    for begin in range(0, width, chunk):
        adapters.use([adapter] * len(rows))
        part = ids[:, begin : begin + chunk]
        logits = model(input_ids=part, past_key_values=cache, use_cache=in_pieces).logits
        targets = ids[:, begin + 1 : begin + chunk + 1]
        for row, (values, places) in enumerate(_read(logits, targets, top)):
            logprobs[row] += values
            likeliest[row] += places
        yield
    return [
        TokenScores(logprobs[row][: len(ids)], likeliest[row][: len(ids)] if top else ())
        for row, ids in enumerate(rows)
    ]


def _read(
    logits: torch.Tensor, targets: torch.Tensor, top: int
) -> Iterator[tuple[list[float], list[Likeliest]]]:
    """Give for each row the log-probabilities of its targets (rows, T) and the likeliest tokens.

    Args:
        logits: shape (rows, at least T, vocabulary).
        targets: token ids.
        top: how many of the likeliest.
    """
    values: list[list[float]] = [[] for _ in targets]
    likeliest: list[list[Likeliest]] = [[] for _ in targets]
    for begin in range(0, targets.shape[1], SOFTMAX_TOKENS):
        some = slice(begin, begin + SOFTMAX_TOKENS)
        wanted = targets[:, some]
        table = logits[:, begin : begin + wanted.shape[1]].float().log_softmax(-1)
        for row, found in enumerate(table.gather(-1, wanted[..., None]).squeeze(-1).tolist()):
            values[row] += found
        if top:
            best = table.topk(top)
            for row, (ids, scores) in enumerate(
                zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ):
                likeliest[row] += [
                    tuple(zip(*place, strict=True)) for place in zip(ids, scores, strict=True)
                ]
    return zip(values, likeliest, strict=True)
