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
        flags: help by flag, where it differs from the flag's own.
    """

    language: str
    entries: Mapping[str, str]
    flags: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence, with ``{name}`` in it replaced."""
        text = self.entries[key]
        return text.format(**values) if values else text

    def flag_help(self, name: str, english: str) -> str:
        """Return the help of a flag; one that isn't translated yet stays English."""
        return self.flags.get(name, english)


@cache
def words_in(language: str) -> Words:
    """Return the words of a language."""
    flags = {} if language == "en" else _read(f"flags_{language}.json")
    return Words(language, _read(f"{language}.json"), flags)


def _read(name: str) -> Mapping[str, str]:
    content: Mapping[str, str] = json.loads(
        files(__name__).joinpath(name).read_text(encoding="utf-8")
    )
    return content
