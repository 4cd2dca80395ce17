"""Streams of samples: each row once an epoch, however many shards read it and wherever they stop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ft_core import DataError, Example, Message
from ft_core.sample_stream import SampleStream, StreamItem
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates import Template, choose_template
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_data import stream
from ft_data.report import RowFault
from ft_data.row_stream import StreamedRow
from ft_data.streaming import EncodedStream


@dataclass(frozen=True)
class Words:
    """Encodes a row's text as one token a word; an empty one is dropped, and "twice" gives two samples."""

    name: str = "words"
    fingerprint: str = "words"

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        result: list[Sample | Dropped] = []
        for row, example in enumerate(examples):
            words = (example.answer or "").split()
            if words[0] == "drop":
                result.append(Dropped(row, "asked", "", example.source))
                continue
            for _ in range(2 if words[0] == "twice" else 1):
                tokens = Tokens([int(w) for w in words[1:]], [1.0] * (len(words) - 1))
                result.append(Sample((tokens,), row))
        return result


@dataclass(frozen=True)
class Listed:
    """A source in memory that says what was read of it."""

    texts: tuple[str | None, ...]

    def rows(self, start: int = 0, step: int = 1) -> Iterator[StreamedRow]:
        for position in range(start, len(self.texts), step):
            text = self.texts[position]
            if text is None:
                yield StreamedRow(position, RowFault("missing_answer", None, "no answer"))
            else:
                answer = Example(messages=(Message("user", "q"), Message("assistant", text)))
                yield StreamedRow(position, answer)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t")
    return choose_template(
        "AUTO", Tokenizer.from_directory(directory), registered=None, prefers_record=False
    ).template


def source(count: int, *, offset: int = 0) -> Listed:
    """Rows of 1 to 5 tokens that name their number."""
    return Listed(tuple("row " + f"{offset + i} " * (1 + (offset + i) % 5) for i in range(count)))


def make(template: Template, *sources: Listed, **options: Any) -> EncodedStream:
    settings = {"window": 8, "seed": 3, **options}
    return EncodedStream(sources, Words(), template, **settings)


def epoch_of(stream: SampleStream, epoch: int, shard: int = 0, shards: int = 1) -> list[StreamItem]:
    """Take the items of one epoch, from the beginning."""
    taken = []
    for item in stream.items(shard, shards):
        if item.epoch > epoch:
            return taken
        if item.epoch == epoch:
            taken.append(item)
    raise AssertionError


def rows_of(items: Sequence[StreamItem]) -> list[tuple[float, int]]:
    return [(s.values["source"], s.row) for item in items for s in item.samples]


@pytest.mark.parametrize("pack_length", [None, 11])
@pytest.mark.parametrize("shards", [1, 2, 4, 5])
def test_each_row_once_an_epoch(template: Template, shards: int, pack_length: int | None) -> None:
    two = make(template, source(37), source(22, offset=100), pack_length=pack_length)
    for epoch in range(3):
        parts = [epoch_of(two, epoch, shard, shards) for shard in range(shards)]
        seen = Counter(row for part in parts for row in rows_of(part))
        assert seen == Counter([(0.0, i) for i in range(37)] + [(1.0, i) for i in range(22)]), (
            "each row of both sources exactly once"
        )
        sizes = [len(rows_of(part)) for part in parts]
        assert max(sizes) - min(sizes) <= 2, "shards are about equally large"


def test_samples_hold_their_rows(template: Template) -> None:
    (sample,) = next(make(template, source(7), window=0).items()).samples
    assert sample.sequences[0].input_ids == [0] and sample.row == 0
    whole = epoch_of(make(template, source(30), pack_length=11), 0)
    for item in whole:
        assert sum(sample.length for sample in item.samples) <= 11
        for sample in item.samples:
            assert set(sample.sequences[0].input_ids) == {sample.row}
    assert any(len(item.samples) > 1 for item in whole)


@pytest.mark.parametrize("pack_length", [None, 11])
def test_any_position_goes_on_with_what_would_have_come(
    template: Template, pack_length: int | None
) -> None:
    texts = list(source(21).texts)
    texts[4], texts[5], texts[12] = None, "drop", "twice 12 12"
    texts[16:] = ["drop"] * 5  # a whole window that gives nothing
    streams = make(
        template, Listed(tuple(texts)), source(9, offset=50), pack_length=pack_length, window=4
    )
    for shard in (0, 1):
        whole = list(islice(streams.items(shard, 2), 60))
        assert max(item.epoch for item in whole) >= 2
        for stop in range(len(whole) - 1):
            cursor = json.loads(json.dumps(whole[stop].cursor))
            rest = islice(streams.items(shard, 2, cursor), len(whole) - stop - 1)
            assert list(rest) == whole[stop + 1 :], stop


def test_rows_in_are_samples_and_drops_out(template: Template) -> None:
    texts = list(source(20).texts)
    texts[0] = texts[19] = None
    texts[7] = texts[18] = "drop"
    items = list(islice(make(template, Listed(tuple(texts)), window=5).items(), 16 * 3))
    dropped: Counter[str] = Counter()
    for item in items:
        dropped.update(item.dropped)
    assert dropped == {"missing_answer": 6, "asked": 6}
    assert all(count == 3 for count in Counter(rows_of(items)).values())


def test_order_is_computed_from_seed_and_epoch(template: Template) -> None:
    def order(**options: Any) -> list[tuple[float, int]]:
        return rows_of(epoch_of(make(template, source(40), source(40), **options), 1))

    assert order() == order()
    assert order(seed=4) != order()
    assert rows_of(epoch_of(make(template, source(40), source(40)), 0)) != order()
    plain = rows_of(epoch_of(make(template, source(40), window=0), 0))
    assert plain == [(0.0, i) for i in range(40)]


def test_sources_are_mixed_by_their_weights(template: Template) -> None:
    many = make(template, source(4000), source(4000), weights=(3, 1), window=0)
    first = rows_of(list(islice(many.items(), 2000)))
    assert 0.72 < sum(number == 0 for number, _ in first) / len(first) < 0.78
    rest = rows_of(epoch_of(many, 0))
    assert len(rest) == 8000 and {number for number, _ in rest[-1000:]} == {1.0}


def test_shards_without_rows_are_refused(template: Template) -> None:
    with pytest.raises(DataError, match=r"shard 4 of 4 .* has no rows; use fewer"):
        next(make(template, source(3)).items(3, 4))
    with pytest.raises(DataError, match="none of the 3 rows"):
        next(make(template, Listed(("drop",) * 3)).items())


def test_what_decides_the_order_changes_the_fingerprint(template: Template) -> None:
    one = make(template, source(3), names=("a",))
    assert one.fingerprint == make(template, source(3), names=("a",)).fingerprint
    for options in ({"window": 9}, {"seed": 1}, {"pack_length": 4}, {"names": ("b",)}):
        changed = make(template, source(3), **{"names": ("a",), **options})
        assert changed.fingerprint != one.fingerprint, options


def test_files_are_streamed(template: Template, tmp_path: Path) -> None:
    sources = []
    for name, count in (("a", 5), ("b", 4)):
        file = tmp_path / f"{name}.jsonl"
        rows = [{"query": f"q{i}", "response": f"row {i}"} for i in range(count)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        sources.append(stream(str(file)))
    both = EncodedStream(tuple(sources), Words(), template, window=3)
    parts = [epoch_of(both, 0, shard, 2) for shard in (0, 1)]
    assert sorted(row for part in parts for row in rows_of(part)) == [
        *((0.0, i) for i in range(5)),
        *((1.0, i) for i in range(4)),
    ]
