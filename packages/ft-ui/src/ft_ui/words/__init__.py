"""The words of the pages, in each language."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Words:
    """Looks up what a page says.

    Attributes:
        language: one of ``LANGUAGES``.
        entries: sentence by key.
    """

    language: str
    entries: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence, with ``{name}`` in it replaced."""
        text = self.entries[key]
        return text.format(**values) if values else text


@cache
def words_in(language: str) -> Words:
    """Return the words of a language."""
    content = files(__name__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    return Words(language, json.loads(content))
