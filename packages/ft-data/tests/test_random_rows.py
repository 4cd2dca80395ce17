"""Random rows through detection and reading: an example or a ``DataError``, nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ft_core import DataError, Example
from ft_core.examples import Source
from ft_data.reading import RowReader
from ft_data.recognition import recognise

NAMES = [
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "turns",
    "query",
    "response",
    "history",
    "system",
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "question",
    "answer",
    "chosen",
    "rejected",
    "chosen_response",
    "rejected_response",
    "label",
    "kto_tag",
    "text",
    "tools",
    "functions",
    "images",
    "image",
    "weight",
    "input_ids",
    "labels",
    "attention_mask",
    "context",
    "问题",
    "回答",
    "message_id",
    "parent_id",
    "message_tree_id",
    "role",
    "content",
    "from",
    "value",
    "speaker",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "human",
    "assistant",
    "type",
    "id",
    "url",
    "source",
    "data",
    "image_url",
]
SCALARS = (None, 0, 1, 1.5, True, -3, 10**30, float("inf"))
TEXTS = (
    *(
        "",
        "user",
        "assistant",
        "function_call",
        "hello",
        "[1]",
        "{}",
        "tool",
        "image",
        "true",
        "Bob",
    ),
    "\n\nHuman: a\n\nAssistant: b",
    '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]',
    "[['a', 'b']]",
    '{"name": "f", "arguments": {}}',
)


def made(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(9 if depth else 5)
    if kind == 0:
        return rng.choice(SCALARS)
    if kind < 4:
        return rng.choice(TEXTS)
    if kind == 4:
        return [1, 2]
    if kind < 7:
        return [made(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(NAMES): made(rng, depth - 1) for _ in range(rng.randrange(5))}


@pytest.mark.parametrize("seed", range(4))
def test_sources_of_random_rows(seed: int) -> None:
    rng = random.Random(seed)
    examples = refused = 0
    for _ in range(2500):
        rows = [
            (
                {rng.choice(NAMES): made(rng, 4) for _ in range(rng.randrange(1, 7))},
                Source("rows.jsonl", line),
            )
            for line in range(1, rng.randrange(2, 5))
        ]
        try:
            shape, read_again = recognise(iter(rows))
            reader = RowReader(shape, require_answer=rng.random() < 0.5)
            for row, origin in read_again:
                found = reader.read(row, origin)
                if isinstance(found, Example):
                    examples += 1
                    json.dumps(found.to_json(), default=str)
        except DataError as error:
            refused += 1
            assert str(error)
    assert examples > 20 and refused > 100
