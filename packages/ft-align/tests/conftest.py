"""Tiny models, their tokenizer and chat format, and rows of preferences."""

from __future__ import annotations

from pathlib import Path

import pytest

from ft_core.errors import Place
from ft_core.examples import Example, Message
from ft_core.templates import choose_template
from ft_core.templates.template import Template
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer

ANSWERS = (
    ("What is the capital of France?", "Paris.", "I am a small model."),
    ("Who are you?", "I am a small model.", "the sea"),
    ("Write a short poem about the sea, and count.", "The quick brown fox", "1, 2, 3, 4, 5, 6"),
    ("hello", "hello world, good morning", "def add(a, b)"),
    ("thank you", "you are welcome", "no"),
)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="session")
def chatml(directory: Path) -> Template:
    tokenizer = Tokenizer.from_directory(directory)
    return choose_template("chatml", tokenizer, registered=None, prefers_record=False).template


@pytest.fixture(scope="session")
def pairs() -> list[Example]:
    """Return rows with a chosen and a rejected answer."""
    return [
        Example(
            (Message("user", question), Message("assistant", chosen)),
            rejected=(Message("assistant", rejected),),
            source=Place("rows.jsonl", line),
        )
        for line, (question, chosen, rejected) in enumerate(ANSWERS, 1)
    ]


@pytest.fixture(scope="session")
def labelled() -> list[Example]:
    """Return rows with a labelled answer."""
    return [
        Example(
            (Message("user", question), Message("assistant", chosen if line % 3 else rejected)),
            label=bool(line % 3),
            source=Place("rows.jsonl", line),
        )
        for line, (question, chosen, rejected) in enumerate(ANSWERS, 1)
    ]
