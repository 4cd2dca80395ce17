"""Which words a text has: Chinese is cut into characters, everything else into words."""

from __future__ import annotations

import re

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"[^\W_]+")


def is_chinese(text: str) -> bool:
    """Whether a text holds Chinese characters."""
    return _CHINESE.search(text) is not None


def words(text: str, *, chinese: bool) -> list[str]:
    """Return words in lower case, and with ``chinese`` single characters."""
    if chinese:
        text = _CHINESE.sub(lambda match: f" {match[0]} ", text)
    return _WORD.findall(text.lower())
