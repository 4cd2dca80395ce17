"""The keys that open the server."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from ft_core.errors import UsageError


class Keys:
    """Compares what a client shows with all keys, in a time that tells nothing of them.

    Args:
        keys: at least one.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def accept(self, shown: bytes) -> bool:
        """Whether it is one of them."""
        digest = _digest(shown)
        found = False
        for known in self._digests:  # all of them, also after the right one
            found |= secrets.compare_digest(digest, known)
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(given: str) -> list[str]:
    """Return the keys of ``--api_key``: one or several with commas between, or ``@FILE`` with one a line.

    Raises:
        UsageError: there is none, or one can't stand in a header.
    """
    if given.startswith("@"):
        file = Path(given[1:]).expanduser()
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--api_key {given}: the file can't be read: {error}") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    else:
        keys = [key.strip() for key in given.split(",") if key.strip()]
    if not keys:
        raise UsageError("--api_key holds no key; leave it out to serve without one")
    for key in keys:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError("--api_key: a key takes printable ASCII characters without spaces")
    return keys
