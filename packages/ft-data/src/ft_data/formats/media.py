"""Images, videos and audios of rows as paths or addresses, whatever tables keep them as."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ft_core.hub import cache_directory
from ft_data.formats.shape import kind_of

MEDIA: Final = frozenset({"images", "videos", "audios"})
"""The columns that hold them."""

_ENDINGS: Final = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"\x1aE\xdf\xa3", ".webm"),
)


class BadMediaError(ValueError):
    """A value that is no image, video or audio."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field
        self.rule = "wrong_type"


def media_paths(value: object, field: str) -> list[str]:
    """Return paths and addresses.

    Tables keep a file as ``{"bytes", "path"}``: its bytes are written into ft's cache once, under a name made of
    their content.

    Args:
        value: one or several paths, addresses or files; ``None`` is no file.
        field: the column, for errors.

    Raises:
        BadMediaError: it is none of these.
    """
    if value is None or value == "":
        return []
    items: Iterable[object] = value if isinstance(value, (list, tuple)) else [value]
    return [_path(item, field) for item in items if item is not None]


def _path(item: object, field: str) -> str:
    if isinstance(item, str) and item:
        return item
    if isinstance(item, bytes):
        return str(_stored(item))
    if isinstance(item, Mapping):
        content, path = item.get("bytes"), item.get("path")
        if isinstance(content, bytes):
            return str(_stored(content))
        if isinstance(path, str) and path:
            return path
    raise BadMediaError(f"must be a path, an address or a file, but is {kind_of(item)}", field)


def _stored(content: bytes) -> Path:
    name = hashlib.sha256(content).hexdigest()
    folder = cache_directory() / "media" / name[:2]
    target = folder / (name + _ending(content))
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{target.name}.{os.getpid()}.partial"
        partial.write_bytes(content)
        partial.replace(target)
    return target


def _ending(content: bytes) -> str:
    if content[:4] == b"RIFF":
        return {b"WEBP": ".webp", b"WAVE": ".wav", b"AVI ": ".avi"}.get(content[8:12], "")
    if content[4:8] == b"ftyp":
        return ".mp4"
    return next((ending for mark, ending in _ENDINGS if content.startswith(mark)), "")
