"""Datasets on a hub: their files are fetched by ft-core and read like local ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from ft_core.hub import fetch_dataset
from ft_data.file_kinds.rows import Wanted, everything, later
from ft_data.files import RawRow, rows_of_files
from ft_data.sources import Hub
from ft_data.storage import FoundFiles, local_file

_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/dataset``."""
    return _ID.fullmatch(name) is not None


def default_hub() -> Hub:
    """Return where ids without prefix are looked for: ModelScope, or Hugging Face with ``USE_HF=1``."""
    return (
        "hf" if os.environ.get("USE_HF", "").strip().lower() in ("1", "true", "yes", "on") else "ms"
    )


def read_hub(
    identity: str,
    hub: Hub,
    subsets: Iterable[str] = (),
    splits: Iterable[str] = ("train",),
    wanted: Wanted = everything,
) -> Iterator[RawRow]:
    """Read all rows of a hub dataset, one file after the other, fetching what is not in the hub's cache.

    Args:
        identity: ``owner/dataset``.
        hub: which hub.
        subsets: subsets to read one after the other; empty reads the default one.
        splits: splits of each.
        wanted: says which rows are read, by their position from 0; ``SKIPPED`` stands for the others.

    Raises:
        HubError: no network, no such dataset, subset or split, or no permission.
        DataError: a file can't be read.
    """
    begin = 0
    for subset in tuple(subsets) or (None,):
        found = fetch_dataset(
            identity,
            hub="huggingface" if hub == "hf" else "modelscope",
            subset=subset,
            splits=tuple(splits),
        )
        name = identity if subset is None else f"{identity}:{subset}"
        for split, paths in found.items():
            files = (local_file(path).called(f"{name}/{split}/{path.name}") for path in paths)
            for row in rows_of_files(FoundFiles(tuple(files)), later(wanted, begin)):
                begin += 1
                yield row
