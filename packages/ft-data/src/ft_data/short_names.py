"""Short names of data sets, for what is logged of each."""

from __future__ import annotations

import re
from collections.abc import Container

from ft_data.sources import parse_source

_ENDINGS = re.compile(r"(\.(jsonl?|ndjson|csv|tsv|parquet|arrow|txt))?(\.(gz|zst|bz2))?$")


def short_name(source: str, taken: Container[str] = ()) -> str:
    """Return a name for a source, as ``--dataset`` writes it, that no other has.

    It is the last part of a path or id, without the ending of a file: ``rows`` for ``data/rows.jsonl.gz#500``.
    A second one of the same name becomes ``rows_2``.
    """
    last = re.split(r"[/\\]", parse_source(source).name.rstrip("/\\"))[-1]
    name = re.sub(r"[^\w.-]+", "_", _ENDINGS.sub("", last)) or "rows"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
