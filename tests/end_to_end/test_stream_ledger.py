"""A ledger of the rows that ranks and workers get from a stream, by the loader alone: nothing is trained."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ft_core.templates import Template, choose_template
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_data import parse_sources, stream
from ft_data.streaming import EncodedStream
from ft_train import SftRecipe
from ft_train.data import Collator
from ft_train.loaders import StreamLoader

pytestmark = [pytest.mark.slow]

RANKS, WORKERS = 2, 2
Row = tuple[int, int, int]
"""Epoch, source, position."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t")
    return choose_template(
        "AUTO", Tokenizer.from_directory(directory), registered=None, prefers_record=False
    ).template


def write(file: Path, count: int) -> Path:
    rows = [{"query": f"q{i}", "response": f"answer {i} " * (1 + i % 7)} for i in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read(loader: StreamLoader, batches: int) -> list[list[Row]]:
    """Take some micro-batches as training does, with more of them prepared than are taken."""
    ledger = []
    for _, batch in zip(range(batches), loader, strict=False):
        loader.taken(batch)
        assert batch.position is not None and not batch.filler
        pairs = zip(batch.position.epochs, batch.samples, strict=True)
        ledger.append([(epoch, int(s.values["source"]), s.row) for epoch, s in pairs])
        assert len(batch.batch["cu_seqlens"]) == len(batch.samples) + 1
    return ledger


def test_each_row_once_an_epoch_over_ranks_workers_packing_and_stops(
    template: Template, tmp_path: Path
) -> None:
    files = [write(tmp_path / "a.jsonl", 131), write(tmp_path / "b.jsonl", 70)]
    sources = parse_sources([str(file) for file in files])
    recipe = SftRecipe(max_length=256)

    def loader(rank: int, state: Any = None) -> StreamLoader:
        """Make everything anew, as a process that starts does."""
        rows = EncodedStream(
            tuple(stream(source) for source in sources),
            recipe,
            template,
            weights=(2, 1),
            window=20,
            pack_length=256,
            seed=7,
        )
        return StreamLoader(
            rows,
            Collator(recipe),
            batch_size=2,
            workers=WORKERS,
            rank=rank,
            world_size=RANKS,
            state=state,
        )

    total = 60
    ledgers: list[list[list[Row]]] = []
    for rank in range(RANKS):
        ledger: list[list[Row]] = []
        state = None
        for steps in (
            7,
            1,
            16,
            total - 24,
        ):  # stopped three times, also at odd turns of the workers
            part = loader(rank, state)
            ledger += read(part, steps)
            state = json.loads(json.dumps(part.state()))
        assert ledger == read(loader(rank), total), "as without stops"
        ledgers.append(ledger)
    seen = Counter(row for ledger in ledgers for batch in ledger for row in batch)
    expected = [(0, i) for i in range(131)] + [(1, i) for i in range(70)]
    # An epoch is through once every shard has rows of the one after it.
    last = min(max(row[0] for batch in ledger for row in batch) for ledger in ledgers)
    assert last >= 2
    for epoch in range(last - 1):
        found = {row[1:]: count for row, count in seen.items() if row[0] == epoch}
        assert found == dict.fromkeys(expected, 1), f"epoch {epoch}"
    assert set(seen.values()) == {1}
    assert any(len(batch) > 4 for ledger in ledgers for batch in ledger), "rows are packed"
