"""What only a tokenizer and a chat format can tell: how many tokens rows have, and texts that are special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ft_core.examples import Example
from ft_core.loss_scale import LossPolicy
from ft_core.next_tokens import NextTokenEncoder
from ft_core.samples import Sample
from ft_core.templates.template import Template
from ft_data.checks.findings import Finding, found, place_of

_CHUNK: Final = 512

_USUAL: Final = (
    r"<\|[A-Za-z0-9_ ]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|\[gMASK\]|<[se]op>"
    r"|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>"
)
"""Special tokens of the common chat formats."""


def special_texts(examples: Sequence[Example], template: Template | None) -> list[Finding]:
    """Find texts that look like special tokens: usual ones, and those of the template's tokenizer."""
    own = () if template is None else template.tokenizer.special_tokens
    names = sorted((re.escape(token.text) for token in own if token.text.strip()), reverse=True)
    pattern = re.compile("|".join([*names, _USUAL]))
    places = []
    for index, example in enumerate(examples):
        turns = [turn.text for turn in (*example.messages, *(example.rejected or ()))]
        marks = {mark for text in (example.text or "", *turns) for mark in pattern.findall(text)}
        if marks:
            places.append(f"{place_of(example, index)}: {', '.join(sorted(marks))}")
    return found(
        "special_token",
        "rows with texts that are special tokens of chat formats; in turns they are learned as plain text",
        places,
    )


def lengths(
    examples: Sequence[Example], template: Template, policy: LossPolicy, max_length: int
) -> tuple[list[int], list[Finding]]:
    """Encode rows and count their tokens.

    Returns:
        The lengths of those that can be encoded, and what was found: rows over ``max_length`` (-1 is no limit), and
        rows that the chat format refuses.
    """
    sizes: list[int] = []
    long, refused = [], []
    encoder = NextTokenEncoder("sft", -1, "delete", policy)
    for start in range(0, len(examples), _CHUNK):
        for item in encoder.encode(examples[start : start + _CHUNK], template):
            index = start + item.row
            if not isinstance(item, Sample):
                refused.append(item.detail)
                continue
            sizes.append(item.length)
            if max_length != -1 and item.length > max_length:
                long.append(f"{place_of(examples[index], index)}: {item.length:,} tokens")
    return sizes, [
        *found("over_max_length", f"rows of more than {max_length:,} tokens", long),
        *found("not_encodable", "rows that the chat format refuses", refused),
    ]
