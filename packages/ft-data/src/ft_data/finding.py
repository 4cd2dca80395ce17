"""Finding what a source names: files, a registered name or a hub id; and its rows, in a shape that is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ft_core.errors import UsageError, suggest
from ft_data.file_kinds.rows import Wanted, everything, only
from ft_data.files import RawRow, is_data_name, rows_of_files
from ft_data.hub import default_hub, is_hub_id, read_hub
from ft_data.identity import Identity, filled
from ft_data.registry import DATASETS, DatasetInfo, by_id
from ft_data.sources import Hub, Source
from ft_data.storage import (
    FoundFiles,
    is_address,
    is_glob,
    local_file,
    local_files,
    remote_files,
)

Read = Callable[[Wanted], Iterable[RawRow]]
"""Reads rows, ``SKIPPED`` in the place of those that aren't wanted."""

_PATH_LIKE = re.compile(r"[.~/\\]|[A-Za-z]:[\\/]|[^/\\]+[/\\][^/\\]+[/\\]")
_TITLES: dict[Hub, str] = {"hf": "Hugging Face", "ms": "ModelScope"}


@dataclass(frozen=True, slots=True)
class Found:
    """What a source names.

    Attributes:
        rows: its rows, as they come; where one couldn't be brought into a shape that is read stands a ``DataError``.
        notes: what a person should know about where they come from.
        expects_bad_rows: whether rows that break a rule are left out whatever the check says.
        named: whether its registration says what its columns are.
    """

    rows: Iterable[RawRow]
    notes: tuple[str, ...] = ()
    expects_bad_rows: bool = False
    named: bool = False


def find_rows(
    source: Source, identity: Identity | None = None, wanted: Wanted = everything
) -> Found:
    """Find what a source names.

    Args:
        source: what to look for; its count is not considered.
        identity: what stands for ``{{NAME}}`` and ``{{AUTHOR}}`` in its rows.
        wanted: says which rows are read, by their position from 0; ``SKIPPED`` stands for the others.

    Raises:
        UsageError: there is no such file, name or id; or rows have placeholders that nothing stands for.
        DataError: a file can't be read.
        HubError: a hub doesn't give it.
    """
    info, read, notes = _find(source)
    named = info.plan.changes_rows
    # With a plan one row may become several, so positions are known after it.
    rows = only(info.plan.apply(read(everything)), wanted) if named else read(wanted)
    return Found(filled(rows, identity or Identity()), notes, info.expects_bad_rows, named)


def _find(source: Source) -> tuple[DatasetInfo, Read, tuple[str, ...]]:
    path = Path(source.name).expanduser()
    if source.hub is None and (path.is_file() or is_address(source.name)):
        return _given(source)
    if source.name in DATASETS:
        return _registered(source, DATASETS.get(source.name))
    if source.hub is None and _names_a_path(source.name, path):
        return _given(source)
    if is_hub_id(source.name):
        name, info = by_id(source.name) or (source.name, DatasetInfo())
        hub = source.hub or default_hub()
        return info, _hub(name, hub, source, info), ()
    here = [item.name for item in Path().iterdir() if is_data_name(item.name)]
    raise UsageError(
        f"unknown dataset {source.name!r}: no file, registered name or hub id (owner/name)."
        f"{suggest(source.name, [*DATASETS, *here])} `ft list datasets` shows the registered names"
    )


def _names_a_path(name: str, path: Path) -> bool:
    if _PATH_LIKE.match(name) or is_data_name(name) or is_glob(name) or path.is_dir():
        return True
    # "rows/train" beside a directory "rows" is a slip in a path rather than a hub id.
    return "/" in name and path.parent.is_dir()


def _hub(identity: str, hub: Hub, source: Source, info: DatasetInfo) -> Read:
    subsets = source.subsets or info.subsets
    return lambda wanted: read_hub(identity, hub, subsets, info.split, wanted)


def _files(found: FoundFiles) -> Read:
    return lambda wanted: rows_of_files(found, wanted)


def _given(source: Source) -> tuple[DatasetInfo, Read, tuple[str, ...]]:
    """Read a path, a directory, a glob or an address."""
    if source.subsets:
        subsets = "/".join(source.subsets)
        raise UsageError(f"dataset {source.name}: a file has no subsets; leave ':{subsets}' out")
    found = remote_files(source.name) if is_address(source.name) else local_files(source.name)
    return DatasetInfo(), _files(found), found.notes


def _registered(source: Source, info: DatasetInfo) -> tuple[DatasetInfo, Read, tuple[str, ...]]:
    ids: dict[Hub, str | None] = {"hf": info.huggingface_id, "ms": info.modelscope_id}
    file = info.file()
    if file is not None and (source.hub is None or not any(ids.values())):
        if source.subsets:
            raise UsageError(f"dataset {source.name}: it has no subsets; leave them out")
        if info.is_packaged:
            return info, _files(FoundFiles((local_file(file).called(source.name),))), ()
        files = local_files(str(file))
        return info, _files(files), files.notes
    notes: list[str] = []
    hub = source.hub or default_hub()
    other: Hub = "hf" if hub == "ms" else "ms"
    if ids[hub] is None and source.hub is None:
        notes.append(f"it is only on {_TITLES[other]}, and taken from there")
        hub = other
    identity = ids[hub]
    if identity is None:
        raise UsageError(
            f"dataset {source.name!r} is not on {_TITLES[hub]}; leave {hub.upper()}:: out to take it from "
            f"{_TITLES[other]}"
        )
    if info.huge:
        notes.append("it is huge; #rows takes some of it, but all of it is fetched first")
    return info, _hub(identity, hub, source, info), tuple(notes)
