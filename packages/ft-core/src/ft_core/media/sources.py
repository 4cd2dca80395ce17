"""The bytes of media: from files, data URIs, base64 and addresses."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ft_core.media.faults import MediaError
from ft_core.media.limits import MediaLimits

_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")
_ADDRESS = re.compile(r"(?i)^([a-z][a-z0-9+.-]+)://")


def read_bytes(source: str, limits: MediaLimits) -> bytes:
    """Return the content of a path, address, data URI or text in base64.

    Raises:
        MediaError: it is missing, too large, empty, or may not be read.
    """
    if source[:5].lower() == "data:":
        content = _from_data_uri(source, limits)
    elif address := _ADDRESS.match(source):
        content = _from_address(source, address[1].lower(), limits)
    elif _BASE64.fullmatch(source) and len(source) > 255:
        content = _decode(source, source, limits)
    else:
        content = _from_file(source, limits)
    if not content:
        raise MediaError("is empty", source, "empty_file")
    return content


def beside(source: str, folder: Path | None) -> str:
    """Return a relative path as one beside the file that names it, if it is there and not here."""
    if folder is None or source.startswith("data:") or _ADDRESS.match(source) or len(source) > 4096:
        return source
    path = Path(source)
    if path.is_absolute() or _exists(path) or not _exists(folder / path):
        return source
    return str(folder / path)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or one with a null character
        return False


def _from_data_uri(source: str, limits: MediaLimits) -> bytes:
    head, comma, data = source.partition(",")
    if not comma:
        raise MediaError("is no data URI: it has no comma", source, "unreadable_media")
    if head.lower().endswith(";base64"):
        return _decode(data, source, limits)
    content = unquote_to_bytes(data)
    _check_size(len(content), source, limits)
    return content


def _decode(data: str, source: str, limits: MediaLimits) -> bytes:
    _check_size(len(data) * 3 // 4, source, limits)
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"is no base64: {error}", source, "unreadable_media") from error


def _from_address(source: str, protocol: str, limits: MediaLimits) -> bytes:
    if protocol == "file":
        return _from_file(source[len("file://") :], limits)
    if protocol not in ("http", "https"):
        raise MediaError(
            f"{protocol}:// is no protocol that media are read by", source, "unreadable_media"
        )
    if limits.remote is None:
        raise MediaError(
            "addresses are not fetched here; send the content as a data URI", source, "remote_media"
        )
    from ft_core.media.remote import fetch

    return fetch(source, limits.remote, limits.max_bytes)


def _from_file(source: str, limits: MediaLimits) -> bytes:
    if not limits.files:
        raise MediaError(
            "files are not read here; send the content as a data URI", source, "local_media"
        )
    try:
        path = Path(source).expanduser().resolve()
        if limits.root is not None and not path.is_relative_to(limits.root.resolve()):
            raise MediaError("lies outside the folder that is served", source, "local_media")
        if not path.exists():
            raise MediaError("there is no such file", source, "missing_file")
        if not path.is_file():
            raise MediaError("is no file", source, "missing_file")
        _check_size(path.stat().st_size, source, limits)
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MediaError(f"can't be read: {said}", source, "unreadable_media") from error


def _check_size(size: int, source: str, limits: MediaLimits) -> None:
    if size > limits.max_bytes:
        raise MediaError(
            f"has {size:,} bytes, more than {limits.max_bytes:,}", source, "too_large_media"
        )
