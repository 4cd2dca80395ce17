"""Text files as people save them."""

from __future__ import annotations

from pathlib import Path

from ft_core.errors import DataError


def read_utf8(file: Path, shown: str | None = None) -> str:
    """Return the text of a file, without a byte order mark.

    Args:
        file: to read.
        shown: how errors name it; ``None`` takes its path.

    Raises:
        DataError: it can't be read, or isn't UTF-8.
    """
    path = str(file) if shown is None else shown
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8",
            path=path,
            rule="encoding",
        ) from None
    except OSError as error:
        raise DataError(
            f"can't be read: {error.strerror or error}", path=path, rule="no_file"
        ) from None
