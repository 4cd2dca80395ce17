"""Grouping samples by their lengths: packs that fill a given length, batches that fill a number of tokens."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence

from ft_core.errors import UsageError


def pack(lengths: Sequence[int], max_length: int, *, window: int | None = None) -> list[list[int]]:
    """Group samples into packs of at most ``max_length`` tokens, each sample in exactly one.

    Best fit decreasing (Johnson 1973): the longest sample first, each into the pack with the least room
    that still takes it. A million samples take seconds.

    Args:
        lengths: tokens of each sample.
        max_length: tokens of a pack.
        window: pack so many samples after the other by themselves, as a stream has to; ``None`` packs
            all together.

    Returns:
        The indices of each pack's samples, in their given order; packs in order of their first sample.

    Raises:
        UsageError: a sample is longer than a pack.
    """
    size = window or max(len(lengths), 1)
    packs: list[list[int]] = []
    for start in range(0, len(lengths), size):
        packs += _best_fit_decreasing(
            lengths, range(start, min(start + size, len(lengths))), max_length
        )
    return packs


def _best_fit_decreasing(
    lengths: Sequence[int], samples: Iterable[int], max_length: int
) -> list[list[int]]:
    order = sorted(samples, key=lambda index: (-lengths[index], index))
    if order and lengths[order[0]] > max_length:
        raise UsageError(
            f"--max_length {max_length}: sample {order[0]} has {lengths[order[0]]} tokens and fits in no pack"
        )
    packs: list[list[int]] = []
    rooms: list[int] = []  # the different rooms there are, in order: at most max_length
    with_room: dict[int, deque[list[int]]] = {}
    for index in order:
        length = int(lengths[index])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            room, members = max_length, [index]
            packs.append(members)
        else:
            room = rooms[place]
            members = with_room[room].popleft()
            members.append(index)
            if not with_room[room]:
                del with_room[room], rooms[place]
        left = room - length
        if left not in with_room:
            with_room[left] = deque()
            insort(rooms, left)
        with_room[left].append(members)
    for members in packs:
        members.sort()
    return sorted(packs)


def batch_by_tokens(
    lengths: Sequence[int], max_tokens: int, *, seed: int | str = 0
) -> list[list[int]]:
    """Group samples of about equal length into batches that also padded hold at most ``max_tokens``.

    Args:
        lengths: tokens of each sample.
        max_tokens: the number of samples of a batch times the longest of them is never more.
        seed: which of equally long samples come together.

    Returns:
        The indices of each batch's samples, each sample in exactly one; the longest first.

    Raises:
        UsageError: a sample alone is longer.
    """
    draw = random.Random(seed)
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], draw.random()))
    if order and lengths[order[0]] > max_tokens:
        raise UsageError(
            f"--max_tokens_per_batch {max_tokens}: sample {order[0]} has {lengths[order[0]]} tokens; give at "
            "least so many, or a smaller --max_length"
        )
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def efficiency(lengths: Sequence[int], packs: Sequence[Sequence[int]], max_length: int) -> float:
    """Return the share of the packs' room that is filled, in [0, 1]."""
    return float(sum(lengths)) / (len(packs) * max_length) if packs else 0.0
