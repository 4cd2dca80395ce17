"""Answers put behind prompts they don't belong to, over a whole step: what KTO estimates its divergence from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ft_align.ranks import gather
from ft_core.samples import Sample, Tokens

_Key = tuple[int, float, tuple[int, ...], int]


@dataclass(frozen=True)
class _Answer:
    """An answer with its prompt, told apart from all others of a step."""

    row: int
    label: float
    tokens: Tokens
    prompt_length: int

    @classmethod
    def of(cls, sample: Sample) -> _Answer:
        (tokens,) = sample.sequences
        plain = Tokens(tuple(tokens.input_ids), tuple(tokens.loss_weights))
        return cls(sample.row, sample.values["label"], plain, int(sample.values["prompt"]))

    @cached_property
    def key(self) -> _Key:
        return self.row, self.label, tuple(self.tokens.input_ids), self.prompt_length

    @cached_property
    def prompt(self) -> tuple[int, ...]:
        return tuple(self.tokens.input_ids[: self.prompt_length])


def mismatch(
    micro_batches: Sequence[Sequence[Sample]], max_length: int = -1
) -> list[list[Tokens | None]]:
    """Return for each sample its prompt with the answer of the sample before it in the step.

    Samples are put in the order of their rows over all ranks, so neither the size of micro-batches nor
    the number of ranks decides which answers meet which prompts. An answer that has the same prompt is
    passed over.

    Args:
        micro_batches: this rank's share of a step; all ranks call together.
        max_length: longer ones lose their end; -1 sets no limit.

    Returns:
        A sequence for each sample, whose prompt is as long as the sample's; ``None`` where all prompts of
        the step are the same.
    """
    own = [[_Answer.of(sample) for sample in samples] for samples in micro_batches]
    everywhere = [item for part in gather(own) for items in part for item in items]
    step = sorted(everywhere, key=lambda item: item.key)
    places = {item.key: index for index, item in enumerate(step)}

    def before(item: _Answer) -> Tokens | None:
        place = places[item.key]
        for index in range(place - 1, place - len(step), -1):
            if step[index].prompt != item.prompt:
                return _put_behind(item, step[index], max_length)
        return None

    return [[before(item) for item in items] for items in own]


def _put_behind(first: _Answer, other: _Answer, max_length: int) -> Tokens:
    """Return the prompt of one and the answer of another; at least a token of the answer stays."""
    answer = slice(other.prompt_length, None)
    room = None if max_length == -1 else max(max_length, first.prompt_length + 1)
    ids = (*first.prompt, *other.tokens.input_ids[answer])[:room]
    weights = (*(0.0,) * first.prompt_length, *other.tokens.loss_weights[answer])[:room]
    return Tokens(ids, weights)
