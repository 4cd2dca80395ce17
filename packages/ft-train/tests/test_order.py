"""Which rows a step sees."""

from collections import Counter

import numpy as np
import pytest

from ft_core.errors import DataError, UsageError
from ft_core.samples import Dropped, Sample, Tokens
from ft_train import SftRecipe
from ft_train.data import Collator
from ft_train.order import BatchOrder


def ranks(world_size, **options):
    return [BatchOrder(rank=rank, world_size=world_size, **options) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("items", [1, 7, 12])
def test_each_row_is_seen_once_an_epoch(items, world_size):
    shares = [list(o) for o in ranks(world_size, items=items, batch_size=2, seed=1)]
    assert Counter(row for share in shares for batch in share for row in batch) == Counter(
        range(items)
    )
    assert len({len(share) for share in shares}) == 1
    assert all(len(share) == len(BatchOrder(items, batch_size=2 * world_size)) for share in shares)


def test_ranks_share_the_global_batches_of_one():
    alone = [set(batch) for batch in BatchOrder(13, batch_size=4, seed=3)]
    shares = zip(*ranks(2, items=13, batch_size=2, seed=3), strict=True)
    assert [set(a) | set(b) for a, b in shares] == alone


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = BatchOrder(50, seed=1), BatchOrder(50, seed=1)
    orders = []
    for epoch in (0, 1, 2):
        first.set_epoch(epoch)
        orders.append(first.order())
    second.set_epoch(2)
    assert second.order() == orders[2]
    assert len({tuple(order) for order in orders}) == 3
    assert BatchOrder(50, seed=2).order() != orders[0]
    assert BatchOrder(5).order() == [0, 1, 2, 3, 4]


def test_packs_stay_together():
    order = BatchOrder(2, groups=[[0, 3], [1, 2, 4]], batch_size=1, seed=0)
    assert sorted(sorted(batch) for batch in order) == [[0, 3], [1, 2, 4]]


def sample(length):
    return Sample((Tokens([5] * length, [0.0] + [1.0] * (length - 1)),))


def test_a_batch_without_a_sample_becomes_a_filler():
    rows = [Dropped(0, "too_long", ""), [Dropped(1, "bad", ""), sample(4)]]
    collate = Collator(SftRecipe(), rows)
    filler = collate([rows[0]])
    assert filler.filler and filler.trained == 0 and filler.dropped == {"too_long": 1}
    assert filler.batch["input_ids"].shape == (1, 4)
    assert collate([]).filler
    real = collate(rows)
    assert not real.filler and real.trained == 3 and real.tokens == 4
    assert real.dropped == {"too_long": 1, "bad": 1}


def test_rows_of_which_none_can_be_trained_are_an_error():
    with pytest.raises(DataError, match="no row gives anything"):
        Collator(SftRecipe(), [Dropped(0, "too_long", "")])([])


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("items", [1, 13, 1000])
def test_rows_of_equal_length_meet_and_each_is_seen_once(items, world_size):
    lengths = np.random.default_rng(0).integers(1, 1000, items)
    options = {"items": items, "batch_size": 2, "seed": 1, "lengths": lengths}
    shares = [list(o) for o in ranks(world_size, **options, arrangement="by_length")]
    rows = [row for share in shares for batch in share for row in batch]
    assert sorted(rows) == list(range(items))

    def waste(orders):
        """Tokens of padding if a global batch were padded to its longest row."""
        batches = [[row for part in parts for row in part] for parts in zip(*orders, strict=True)]
        return sum(max(lengths[batch]) * len(batch) - sum(lengths[batch]) for batch in batches)

    chance = [list(o) for o in ranks(world_size, **options)]
    assert waste(shares) <= waste(chance)
    if items == 1000:
        assert waste(shares) < 0.1 * waste(chance)
        again = BatchOrder(**options, arrangement="by_length")
        again.set_epoch(1)
        assert again.order() != BatchOrder(**options, arrangement="by_length").order()


def test_the_longest_come_first():
    order = BatchOrder(4, batch_size=2, seed=1, lengths=[3, 9, 1, 9], arrangement="longest_first")
    assert list(order) == [[1, 3], [0, 2]]
    order.set_epoch(1)
    assert list(order) == [[1, 3], [0, 2]]
    packs = BatchOrder(
        2, groups=[[0], [1, 2]], seed=1, lengths=[3, 10], arrangement="longest_first"
    )
    assert list(packs) == [[1, 2], [0]]


def test_an_order_by_length_needs_lengths():
    with pytest.raises(UsageError, match="by_length needs the length"):
        BatchOrder(4, arrangement="by_length")


def test_some_of_the_items():
    assert list(BatchOrder(range(3, 8), batch_size=2)) == [[3, 4], [5, 6], [7]]
    assert len(BatchOrder(range(3, 8), batch_size=2)) == 3
