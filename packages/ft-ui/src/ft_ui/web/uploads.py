"""The folder that a page's visitors upload to, and requests that name files elsewhere."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

LARGEST_FILE = 32 * 2**20
"""Bytes of a file that may be uploaded."""


@cache
def upload_folder() -> Path:
    """Return where Gradio puts uploaded files: a folder of this process alone, unless a person set one."""
    if given := os.environ.get("GRADIO_TEMP_DIR"):
        return Path(given).resolve()
    made = Path(tempfile.mkdtemp(prefix="ft-ui-")).resolve()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(made)
    return made


def is_uploaded(path: str, folder: Path) -> bool:
    """Whether a path, which may be anything that a request says, leads to a place below the folder."""
    try:
        return folder.resolve() in Path(path).resolve().parents
    except (OSError, ValueError, RuntimeError):  # a null character, a loop of links
        return False


def names_other_files(body: bytes, folder: Path | None) -> bool:
    """Whether the JSON of a request names a file that wasn't uploaded, or an address to fetch it from.

    Gradio copies every file that an input names to where it gives files out.

    Args:
        body: of the request; one that is no JSON names nothing, as Gradio can't read it either.
        folder: of uploads; ``None`` is a page without any.
    """
    try:
        left = [json.loads(body)]
    except ValueError:
        return False
    except RecursionError:
        return True
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            left += item.values()
            path = item.get("path")
            if (
                isinstance(path, str)
                and "meta" in item
                and (folder is None or not is_uploaded(path, folder))
            ):
                return True
    return False
