"""Registered datasets: what a name stands for, where its rows are and how they are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ft_core.errors import UsageError
from ft_core.registry import Registry
from ft_data.conversion import Conversations, Convert, Plan
from ft_data.sources import Source, parse_source

_FUNCTIONS = "ft_data.datasets."
_PACKAGED = "package:"


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a registered name stands for.

    Attributes:
        huggingface_id: id on the Hugging Face hub.
        modelscope_id: id on ModelScope.
        path: a local file, directory or glob instead of a hub id, or before one; a path inside this package begins
            with ``package:``.
        subsets: subsets that are read where none are asked for; empty reads the default one.
        split: splits that are read, one after the other.
        columns: renamed columns, old → new; a new name of ``"-"`` drops the column.
        conversations: how its conversations are written; has no effect beside ``columns``.
        convert: what makes rows of its rows where renaming doesn't do: a function, or ``module:function``.
        together: the column whose equal values in rows that follow each other make them one row for ``convert``.
        huge: whether it is too large to be fetched by chance.
        rows: about how many rows it has, if that is known.
        tags: what it is about.
    """

    huggingface_id: str | None = None
    modelscope_id: str | None = None
    path: str | None = None
    subsets: tuple[str, ...] = ()
    split: tuple[str, ...] = ("train",)
    columns: Mapping[str, str] = field(default_factory=dict)
    conversations: Conversations | None = None
    convert: Convert | str | None = None
    together: str | None = None
    huge: bool = False
    rows: int | None = None
    tags: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """What is done to its rows."""
        return Plan(self.columns, self.conversations, self.convert, self.together)

    @property
    def expects_bad_rows(self) -> bool:
        """Whether rows that break a rule are left out also where ``--check_dataset_strategy error`` would stop."""
        return self.conversations is not None and self.conversations.error_strategy == "delete"

    @property
    def is_packaged(self) -> bool:
        """Whether its rows come with this package."""
        return self.path is not None and self.path.startswith(_PACKAGED)

    def describe(self) -> str:
        """Return where its rows come from, for lists."""
        if self.path is not None:
            return self.path.removeprefix(_PACKAGED)
        return self.huggingface_id or self.modelscope_id or ""

    def file(self) -> Path | None:
        """Return the local file, directory or glob, if it is one."""
        if self.path is None:
            return None
        if self.is_packaged:
            return Path(str(files("ft_data") / "data" / self.path.removeprefix(_PACKAGED)))
        return Path(self.path).expanduser()


def register_dataset(
    name: str,
    *,
    huggingface_id: str | None = None,
    modelscope_id: str | None = None,
    path: str | Path | None = None,
    subsets: Iterable[str] = (),
    split: Iterable[str] = ("train",),
    columns: Mapping[str, str] | None = None,
    conversations: Conversations | None = None,
    convert: Convert | None = None,
    huge: bool = False,
    tags: Iterable[str] = (),
    exist_ok: bool = False,
) -> DatasetInfo:
    """Give a data set a name that ``--dataset`` takes.

    A package registers one by an entry point of the group ``ft.datasets`` that names a ``DatasetInfo``.

    Args:
        name: the name.
        huggingface_id: its id on the Hugging Face hub.
        modelscope_id: its id on ModelScope.
        path: a local file, directory or glob instead.
        subsets: subsets that are read where none are asked for.
        split: splits that are read.
        columns: renamed columns, old → new; a new name of ``"-"`` drops the column.
        conversations: how its conversations are written, where ``columns`` are not given.
        convert: takes a row of the source, after renaming, and returns one in a shape that is read, several, or
            ``None``; it raises ``ValueError`` for one it can't use.
        huge: whether it is too large to be fetched by chance.
        tags: what it is about.
        exist_ok: replace a data set of this name.

    Raises:
        UsageError: the name can't be one or is taken, or nothing says where the rows are.
    """
    check_name(name)
    if not (huggingface_id or modelscope_id or path):
        raise UsageError(
            f"dataset {name!r}: give huggingface_id, modelscope_id or path, so that its rows can be found"
        )
    info = DatasetInfo(
        huggingface_id=huggingface_id,
        modelscope_id=modelscope_id,
        path=None if path is None else str(path),
        subsets=tuple(subsets),
        split=tuple(split),
        columns=dict(columns or {}),
        conversations=conversations,
        convert=convert,
        huge=huge,
        tags=tuple(tags),
    )
    DATASETS.register(name, info, exist_ok=exist_ok)
    return info


def check_name(name: str) -> None:
    """Refuse a name that ``--dataset`` would read as something else.

    Raises:
        UsageError: it is empty or holds marks of the grammar.
    """
    if not name or parse_source(name, is_file=lambda _: False) != Source(name) or "," in name:
        raise UsageError(
            f"dataset {name!r}: a name must not be empty or hold what --dataset reads as something else: "
            "commas, '::', ':subset', '#rows'"
        )


def _fill(registry: Registry[DatasetInfo]) -> None:
    for name, facts in _data("datasets.json").items():
        registry.register(name, _info(facts))


def _info(facts: Mapping[str, Any]) -> DatasetInfo:
    conversations, convert = facts.get("conversations"), facts.get("convert")
    return DatasetInfo(
        huggingface_id=facts.get("huggingface_id"),
        modelscope_id=facts.get("modelscope_id"),
        path=facts.get("path"),
        subsets=tuple(facts.get("subsets", ())),
        split=tuple(facts.get("split", ("train",))),
        columns=facts.get("columns", {}),
        conversations=None if conversations is None else Conversations(**conversations),
        convert=None if convert is None else _FUNCTIONS + convert,
        together=facts.get("together"),
        huge=facts.get("huge", False),
        rows=facts.get("rows"),
        tags=tuple(facts.get("tags", ())),
    )


def _data(name: str) -> dict[str, Any]:
    text = (files("ft_data") / "data" / name).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


DATASETS: Registry[DatasetInfo] = Registry("dataset", entry_point_group="ft.datasets", load=_fill)
"""All registered datasets, by name."""


def by_id(identity: str) -> tuple[str, DatasetInfo] | None:
    """Return a hub id as it is registered, with its registration, or ``None``; upper and lower case don't matter.

    Where an id has several names, the first that was registered counts.
    """
    wanted = identity.lower()
    for name in DATASETS:
        info = DATASETS.get(name)
        for known in (info.huggingface_id, info.modelscope_id):
            if known is not None and known.lower() == wanted:
                return known, info
    return None


@cache
def former_names() -> Mapping[str, str]:
    """Return the names that datasets had before, with what stands for each now."""
    return {str(name): str(now) for name, now in _data("former_names.json").items()}


def renamed(source: Source) -> Source | None:
    """Return what stands now for a source with a former name, or ``None``; what the source says itself wins."""
    now = former_names().get(source.name)
    if now is None or source.name in DATASETS or Path(source.name).exists():
        return None
    found = parse_source(now, is_file=lambda _: False)
    return replace(
        found,
        hub=source.hub,
        subsets=source.subsets or found.subsets,
        count=found.count if source.count is None else source.count,
    )
