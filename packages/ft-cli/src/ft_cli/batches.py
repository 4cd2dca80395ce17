"""Which samples of a training command come together: packs, batches of so many tokens, or single ones in an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ft_data
from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.command import Invocation
from ft_core.prepare import Say
from ft_data.arguments import EncodingArguments
from ft_data.batch_arguments import BatchArguments

if TYPE_CHECKING:
    from ft_train.order import Arrangement


@dataclass(frozen=True, slots=True)
class Batches:
    """Which samples come together.

    Attributes:
        groups: the samples of each item of a batch; ``None`` where each is one.
        arrangement: how items are put in order.
        lengths: tokens of each item, where the order needs them.
    """

    groups: list[list[int]] | None = None
    arrangement: Arrangement = "random"
    lengths: Sequence[int] | None = None


def batches_of(
    invocation: Invocation,
    samples: ft_data.StoredSamples,
    part: range | None = None,
    *,
    evaluation: bool = False,
    say: Say | None = None,
) -> Batches:
    """Group samples as the flags ask for it.

    Args:
        invocation: the command.
        samples: all of them.
        part: which of them; ``None`` means all.
        evaluation: whether they are evaluated on, where order means nothing.
        say: is told how well packs are filled.

    Raises:
        UsageError: flags can't work together, or a sample is too long.
    """
    chosen = range(len(samples)) if part is None else part
    lengths = samples.lengths[chosen.start : chosen.stop].tolist()
    groups = _groups(invocation, samples, lengths, say)
    if groups is not None:
        groups = [[index + chosen.start for index in members] for members in groups]
    arguments = invocation.get(BatchArguments)
    if evaluation or not (arguments.test_oom_error or arguments.group_by_length):
        return Batches(groups)
    return Batches(
        groups,
        "longest_first" if arguments.test_oom_error else "by_length",
        item_lengths(lengths, groups),
    )


def item_lengths(lengths: Sequence[int], groups: Sequence[Sequence[int]] | None) -> list[int]:
    """Return the tokens of each item: of each sample, or of each group."""
    if groups is None:
        return list(lengths)
    return [sum(lengths[index] for index in members) for members in groups]


def _groups(
    invocation: Invocation,
    samples: ft_data.StoredSamples,
    lengths: Sequence[int],
    say: Say | None,
) -> list[list[int]] | None:
    arguments = invocation.get(BatchArguments)
    if arguments.max_tokens_per_batch is not None:
        seed = invocation.get(ModelArguments).seed
        return ft_data.batch_by_tokens(lengths, arguments.max_tokens_per_batch, seed=seed)
    if not invocation.get(EncodingArguments).packing:
        return None
    room = pack_length(invocation) * max(int(samples.sequences.max(initial=1)), 1)
    groups = ft_data.pack(lengths, room, window=arguments.packing_window)
    if say is not None:
        filled = ft_data.efficiency(lengths, groups, room)
        say(
            f"packed {len(lengths):,} samples into {len(groups):,} of up to {room:,} tokens "
            f"({filled:.1%} full)"
        )
    return groups


def pack_length(invocation: Invocation) -> int:
    """Return the tokens of a pack for each sequence of a sample: a preference has two."""
    return invocation.get(TemplateArguments).max_length
