"""Log-probabilities of given tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from ft_core.engine import TokenScores
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.batch.cache import can_batch
from ft_serve.engines.pt.batch.rows import PADDING_ID

FORWARD_TOKENS = 2048
"""Tokens of one forward pass, padding included; longer sequences run in pieces of this."""

SOFTMAX_TOKENS = 256
"""Tokens whose logits are turned to float32 at a time."""


@dataclass(frozen=True, slots=True)
class Stem:
    """What sequences have in common that differ in their last token only: one pass of the model serves them all.

    Attributes:
        ids: all tokens but the last, at least one.
        ends: the last tokens.
        indices: the sequences, in the order of ``ends``.
    """

    ids: tuple[int, ...]
    ends: list[int]
    indices: list[int]


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
    results = [TokenScores([0.0], [()] if top else ())] * len(sequences)
    stems = stems_of(sequences)
    for group in groups_of([len(stem.ids) for stem in stems]):
        members = [stems[place] for place in group]
        for index, item in (yield from _score_group(adapters, members, top, adapter)).items():
            results[index] = item
    return results


def stems_of(sequences: Sequence[Sequence[int]]) -> list[Stem]:
    """Put sequences together that differ in their last token only; those of one token need no model."""
    stems: dict[tuple[int, ...], Stem] = {}
    for index, sequence in enumerate(sequences):
        *ids, end = sequence
        if ids:
            stem = stems.setdefault(tuple(ids), Stem(tuple(ids), [], []))
            stem.ends.append(end)
            stem.indices.append(index)
    return list(stems.values())


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
    adapters: RowAdapters, stems: Sequence[Stem], top: int, adapter: str | None
) -> Generator[None, None, dict[int, TokenScores]]:
    # Padding goes behind the rows, where causal attention keeps it out of sight.
    model = adapters.model
    ids, targets = _padded(stems, model.device)
    width = ids.shape[1]
    in_pieces = width > FORWARD_TOKENS and can_batch(model)
    chunk = FORWARD_TOKENS if in_pieces else width
    cache = DynamicCache(config=model.config.get_text_config()) if in_pieces else None
    found = []
    for begin in range(0, width, chunk):
        adapters.use([adapter] * len(stems))
        part = slice(begin, begin + chunk)
        output = model(input_ids=ids[:, part], past_key_values=cache, use_cache=in_pieces)
        found.append(_read(output.logits, targets[:, part], top))
        yield
    values, best, scores = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    results = {}
    for row, stem in enumerate(stems):
        places = zip(best[row].tolist(), scores[row].tolist(), strict=True)
        likeliest = [(), *(tuple(zip(*place, strict=True)) for place in places)] if top else []
        for column, index in enumerate(stem.indices):
            logprobs = [0.0, *values[row, : len(stem.ids), column].tolist()]
            results[index] = TokenScores(logprobs, likeliest[: len(logprobs)])
    return results


def _padded(stems: Sequence[Stem], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids (rows, T), and what follows each of them (rows, T, E), where the last one's E followers differ."""
    width = max(len(stem.ids) for stem in stems)
    most = max(len(stem.ends) for stem in stems)
    ids = torch.full((len(stems), width), PADDING_ID, device=device)
    targets = torch.full((len(stems), width, most), PADDING_ID, device=device)
    for row, stem in enumerate(stems):
        own = torch.tensor(stem.ids, device=device)
        last = len(own) - 1
        ids[row, : last + 1] = own
        targets[row, :last] = own[1:, None]
        targets[row, last, : len(stem.ends)] = torch.tensor(stem.ends, device=device)
    return ids, targets


def _read(
    logits: torch.Tensor, targets: torch.Tensor, top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of targets and the likeliest tokens, on the CPU.

    Args:
        logits: shape (rows, T, vocabulary).
        targets: token ids (rows, T, E).
        top: how many of the likeliest.

    Returns:
        Log-probabilities (rows, T, E), ids of the likeliest (rows, T, top) and their log-probabilities.
    """
    parts = []
    for begin in range(0, targets.shape[1], SOFTMAX_TOKENS):
        some = slice(begin, begin + SOFTMAX_TOKENS)
        table = logits[:, some].float()
        total = table.logsumexp(-1, keepdim=True)
        # One likeliest token is found much faster than several in order.
        best, ids = table.max(-1, keepdim=True) if top == 1 else table.topk(top)
        parts.append((table.gather(-1, targets[:, some]) - total, ids, best - total))
    values, ids, scores = (torch.cat(part, 1).cpu() for part in zip(*parts, strict=True))
    return values, ids, scores
