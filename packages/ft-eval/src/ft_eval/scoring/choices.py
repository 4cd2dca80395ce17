"""Which letter an answer to a multiple-choice question names."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BOXED = re.compile(r"\\boxed\{\s*\(?([A-J])\)?[^}]*\}")
_SAID = re.compile(
    r"(?:\banswers?\b|\bchoice\b|\boption\b|答案|选项|应?选择?)\s*"
    r"(?:\bis\b|\bwould be\b|是|为|应为)?\s*[:：]?\s*[\"'“*(（\[]*([A-J])(?![A-Za-z])",
    re.IGNORECASE,
)
# "A fox" begins with an article, "A. fox" and "B fox" with a letter.
_FIRST = re.compile(r"\s*[\"'“*(（\[]*(?:A(?! \w)|[B-J])(?![A-Za-z'’])")
_ALONE = re.compile(r"(?<![A-Za-z])(A(?! \w)|[B-J])(?![A-Za-z'’])")


def chosen_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the letter an answer names, or ``None``.

    Tried in this order: a letter in a LaTeX box; the last one after "answer is", 答案 and the like; one at
    the very beginning; the only one that stands alone anywhere.
    """
    for pattern, place in ((_BOXED, -1), (_SAID, -1)):
        if found := [letter.upper() for letter in pattern.findall(text)]:
            return _known(found[place], letters)
    if match := _FIRST.match(text):
        return _known(match[0][-1], letters)
    alone = {letter for letter in _ALONE.findall(text) if letter in letters}
    return alone.pop() if len(alone) == 1 else None


def _known(letter: str, letters: Sequence[str]) -> str | None:
    return letter if letter in letters else None
