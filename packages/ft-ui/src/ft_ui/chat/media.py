"""Images, videos and audios that people put into a conversation."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from ft_core.errors import DataError, UsageError
from ft_core.examples import Example, Part
from ft_core.samples import MediumKind

KINDS: Final[tuple[MediumKind, ...]] = ("image", "video", "audio")

ENDINGS: Final[Mapping[MediumKind, tuple[str, ...]]] = {
    "image": (".webp",),
    "video": (".mkv", ".m4v"),
    "audio": (".flac", ".ogg", ".m4a"),
}
"""Endings of names that Python doesn't know by itself, but only from a list that some systems have."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A file beside a message."""

    kind: MediumKind
    path: str


def attached(paths: Iterable[str], taken: Collection[MediumKind]) -> tuple[Attached, ...]:
    """Return files as what they show themselves to be by their names.

    Args:
        paths: of the files.
        taken: what the model takes.

    Raises:
        UsageError: a file is of another kind.
    """
    found = []
    for path in paths:
        kind = _kind_of(path)
        if kind not in taken:
            what = " and ".join(f"{item}s" for item in sorted(taken)) or "texts only"
            raise UsageError(f"{Path(path).name}: the model takes {what}")
        found.append(Attached(cast(MediumKind, kind), path))
    return tuple(found)


def _kind_of(path: str) -> str:
    ending = Path(path).suffix.lower()
    for kind, endings in ENDINGS.items():
        if ending in endings:
            return kind
    return (mimetypes.guess_type(path)[0] or "").partition("/")[0]


def parts_of(text: str, media: Sequence[Attached]) -> str | tuple[Part, ...]:
    """Return the content of a message: what is attached stands before the text."""
    if not media:
        return text
    return (*({"type": m.kind, m.kind: m.path} for m in media), {"type": "text", "text": text})


def row_of(example: Example) -> Example:
    """Return a row whose files are listed in its fields, and stand in its messages as marks."""
    parts = [p for m in example.messages if not isinstance(m.content, str) for p in m.content]
    images, videos, audios = (
        tuple(str(part[kind]) for part in parts if part["type"] == kind) for kind in KINDS
    )
    messages = tuple(
        m if isinstance(m.content, str) else replace(m, content=tuple(map(_mark, m.content)))
        for m in example.messages
    )
    return replace(example, messages=messages, images=images, videos=videos, audios=audios)


def kept(example: Example, directory: Path) -> Example:
    """Copy a row's files below a directory, where they stay, and return the row with their new paths.

    Args:
        example: the row.
        directory: of the file that the row goes into.

    Raises:
        DataError: a file is gone.
    """
    images, videos, audios = (
        tuple(_keep(Path(path), directory) for path in paths)
        for paths in (example.images, example.videos, example.audios)
    )
    return replace(example, images=images, videos=videos, audios=audios)


def _keep(file: Path, directory: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"can't be read any more ({error.strerror}); attach it again",
            path=str(file),
            rule="no_file",
        ) from error
    name = f"media/{hashlib.sha256(content).hexdigest()[:16]}{file.suffix.lower()}"
    target = directory / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return name


def _mark(part: Part) -> Part:
    return {"type": part["type"]} if part["type"] in KINDS else part
