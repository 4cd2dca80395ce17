"""Texts whose likelihood is measured, pattern ``text``: each row has a ``text``."""

from __future__ import annotations

from ft_core.errors import UsageError
from ft_eval.respondents.protocol import Prompt
from ft_eval.tasks.custom import Source
from ft_eval.tasks.files import read_rows
from ft_eval.tasks.task import Item, Task


def build(source: Source) -> Task:
    """Read a file of texts."""
    if not source.scores:
        raise UsageError(
            f"{source.entry.name}: pattern text needs likelihoods, and this server gives none; "
            "evaluate the checkpoint itself, or a server with echo and logprobs at /v1/completions"
        )
    items = [
        Item(row.text("id", str(number)), Prompt(text=""), (row.text("text"),), (), {}, row.place)
        for number, row in enumerate(read_rows(source.file))
    ]
    return Task(
        source.entry.name,
        tuple(items),
        "perplexity",
        tuple(source.entry.metrics or ("perplexity", "bits_per_byte")),
        subset=source.subset,
    )
