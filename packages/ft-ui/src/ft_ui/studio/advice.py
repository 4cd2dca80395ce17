"""What an error in a log means and what helps, for people who see it the first time."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KNOWN = (
    ("memory", re.compile(r"out of memory|OutOfMemoryError|Cannot allocate memory|MemoryError")),
    ("disk", re.compile(r"No space left on device|Disk quota exceeded")),
    ("nan", re.compile(r"loss (?:is|became) nan|non-finite|not finite", re.IGNORECASE)),
    ("hub", re.compile(r"HubError|can't be fetched|offline|Connection(?:Error| refused)|Max retries")),
    ("package", re.compile(r"pip install '?[\w-]+(?:\[[\w,-]+\])?'?")),
    ("port", re.compile(r"[Aa]ddress already in use|port \d+.*(?:taken|in use)")),
    ("data", re.compile(r"nothing_to_learn|no rows|none of these rows|\.(?:jsonl?|csv|parquet):\d+")),
    ("killed", re.compile(r"\bKilled\b|SIGKILL|exit code -9")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Advice:
    """An explained error.

    Attributes:
        kind: which one, as the words of a page name it; ``None`` where none is known.
        lines: the lines of the log that say it.
    """

    kind: str | None
    lines: str


def explain(log: str) -> Advice | None:
    """Return the error that a log ends with; ``None`` if it ends without one."""
    lines = log.rstrip().splitlines()
    for index in range(len(lines) - 1, max(-1, len(lines) - 60), -1):
        if re.match(r"(?:process \d+: )?error: ", lines[index]) or re.match(
            r"[\w.]*(?:Error|Exception)\b", lines[index]
        ):
            said = "\n".join(lines[index:][:6])
            kind = next((name for name, sign in _KNOWN if sign.search(said)), None)
            return Advice(kind, said)
    for name, sign in _KNOWN[:2]:
        if found := [line for line in lines[-20:] if sign.search(line)]:
            return Advice(name, "\n".join(found[-3:]))
    return None
