"""Characters that stand for media, and for single tokens, in texts on their way through a chat format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ft_core.errors import DataError

# Supplementary private use area B: a character for each medium, which no template looks at and no rendering changes.
_FIRST: Final[Mapping[str, int]] = {
    "image": 0x100000,
    "video": 0x104000,
    "audio": 0x108000,
    "token": 0x10C000,
}
_ROOM = 0x4000
SENTINEL: Final = re.compile("[\U00100000-\U0010ffff]")


def sentinel(kind: str, index: int) -> str:
    """Return the character that stands for a medium, or for a text that is one token (kind ``token``)."""
    if index >= _ROOM:
        raise DataError(f"the row has more than {_ROOM:,} media of a kind", rule="media")
    return chr(_FIRST[kind] + index)


def meaning(character: str) -> tuple[str, int]:
    """Return what a sentinel stands for: its kind and number."""
    code = ord(character)
    kind = next(name for name, first in _FIRST.items() if first <= code < first + _ROOM)
    return kind, code - _FIRST[kind]
