"""Conversations that are written into one text, each turn after the name of its speaker."""

from __future__ import annotations

import re
from typing import Final

from ft_core.examples import Message, Role

_TURN: Final = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant):", re.ASCII)
_ROLES: Final[dict[str, Role]] = {"Human": "user", "Assistant": "assistant"}


def read_transcript(text: str) -> list[Message] | None:
    r"""Read ``"\n\nHuman: …\n\nAssistant: …"``, as Anthropic's HH-RLHF (Bai et al. 2022) writes conversations.

    A last turn of the assistant without text, which waits for the answer, is left out.

    Returns:
        The turns, or ``None`` if the text does not begin with a turn of a human or never names the assistant.
    """
    marks = list(_TURN.finditer(text))
    if len(marks) < 2 or text[: marks[0].start()].strip() or marks[0][1] != "Human":
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [
        Message(_ROLES[mark[1]], text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    if turns[-1].role == "assistant" and not turns[-1].text:
        turns.pop()
    return turns
