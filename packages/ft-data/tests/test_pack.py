"""Packing: each sample once, no pack too full, few packs."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from ft_core import UsageError
from ft_data import batch_by_tokens, efficiency, pack


@pytest.mark.parametrize("seed", range(20))
def test_packs_are_a_partition_and_fit(seed: int) -> None:
    draw = random.Random(seed)
    limit = draw.choice([16, 100, 2048])
    lengths = [draw.randint(1, limit) for _ in range(draw.randint(0, 400))]
    packs = pack(lengths, limit)
    assert sorted(index for members in packs for index in members) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in members) <= limit for members in packs)
    filled = sorted(sum(lengths[i] for i in members) for members in packs)
    assert len(packs) < 2 or filled[0] + filled[1] > limit, "two packs would fit into one"
    assert len(packs) >= -(-sum(lengths) // limit)


@pytest.mark.parametrize("seed", range(10))
def test_few_more_packs_than_the_best_packing_has(seed: int) -> None:
    """Full packs are cut into samples, so the best packing is known."""
    draw = random.Random(seed)
    best, limit = 60, 1000
    lengths: list[int] = []
    for _ in range(best):
        cuts = sorted(draw.sample(range(1, limit), draw.randint(0, 5)))
        lengths += [end - start for start, end in zip([0, *cuts], [*cuts, limit], strict=True)]
    draw.shuffle(lengths)
    packs = pack(lengths, limit)
    assert best <= len(packs) <= 1.05 * best
    assert efficiency(lengths, packs, limit) == pytest.approx(best / len(packs))


def test_short_samples_fill_packs_well() -> None:
    draw = random.Random(0)
    lengths = [draw.randint(10, 300) for _ in range(2000)]
    assert efficiency(lengths, pack(lengths, 2048), 2048) > 0.98


def test_known_packing() -> None:
    assert pack([6, 4, 5, 5], 10) == [[0, 1], [2, 3]]
    assert pack([], 10) == [] and efficiency([], [], 10) == 0.0


def test_equal_lengths_are_packed_in_order() -> None:
    assert pack([3] * 7, 10) == [[0, 1, 2], [3, 4, 5], [6]]
    assert pack([10, 10], 10) == [[0], [1]]


def test_a_sample_longer_than_a_pack_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--max_length 10: sample 1 has 11 tokens"):
        pack([3, 11], 10)


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_packed_by_themselves(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randint(1, 50) for _ in range(101)]
    packs = pack(lengths, 64, window=20)
    assert sorted(index for members in packs for index in members) == list(range(101))
    assert all(len({index // 20 for index in members}) == 1 for members in packs)
    assert packs[-1] == [100]


@pytest.mark.parametrize("seed", range(10))
def test_batches_hold_at_most_so_many_tokens_also_padded(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randint(1, 300) for _ in range(draw.randint(0, 500))]
    batches = batch_by_tokens(lengths, 1000, seed=seed)
    assert sorted(index for members in batches for index in members) == list(range(len(lengths)))
    for members in batches:
        assert len(members) * max(lengths[index] for index in members) <= 1000
    for earlier, later in pairwise(batches):
        longest = max(lengths[index] for index in later)
        assert longest <= min(lengths[index] for index in earlier)
        room = len(earlier) + 1
        assert room * max(lengths[index] for index in earlier) > 1000, "one more would fit"


def test_equally_long_samples_meet_by_the_seed() -> None:
    assert batch_by_tokens([5] * 40, 10, seed=1) == batch_by_tokens([5] * 40, 10, seed=1)
    assert batch_by_tokens([5] * 40, 10, seed=1) != batch_by_tokens([5] * 40, 10, seed=2)
    with pytest.raises(UsageError, match="--max_tokens_per_batch 10: sample 1 has 11 tokens"):
        batch_by_tokens([3, 11], 10)
