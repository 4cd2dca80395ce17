"""Directories that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ft_core.errors import FtError, UsageError


@contextmanager
def atomic_directory(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Write a directory so that it appears whole or not at all.

    The body gets an empty directory beside ``target`` (on the same file system), which is renamed to
    ``target`` once it is on disk. When the body or the rename fails, nothing is left.

    Args:
        target: the directory to make; missing parents are made.
        replace: exchange an existing directory for the new one.

    Raises:
        UsageError: ``target`` exists and ``replace`` is false.
        FtError: it can't be written; the message names the directory and the reason.
    """
    if target.exists() and not replace:
        raise UsageError(f"{target} exists already; give another directory, or remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _write_error(target, error) from error
    try:
        yield temporary
        _sync(temporary)
        _publish(temporary, target)
    except OSError as error:
        raise _write_error(target, error) from error
    except FtError:
        raise
    except Exception as error:
        cause = _system_error(error, target.parent)
        if cause is None:
            raise
        raise _write_error(target, cause) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(parent: Path, prefix: str) -> None:
    """Remove what a process that was killed left half written below a directory; nobody may be writing there.

    An older directory that was about to be exchanged, and whose successor isn't there, gets its name back.

    Args:
        parent: the directory.
        prefix: how the names of the directories in it begin that ``atomic_directory`` made.
    """
    for item in sorted(parent.glob(f".{prefix}*.*")):
        name, _, rest = item.name[1:].partition(".")
        if rest.startswith("old.") and not (parent / name).exists():
            item.rename(parent / name)
        else:
            shutil.rmtree(item, ignore_errors=True)


def _sync(directory: Path) -> None:
    """Force files to disk before their directory gets its name."""
    for path in _tree(directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _tree(directory: Path) -> Iterable[Path]:
    yield from (item for item in directory.rglob("*") if item.is_file() or item.is_dir())
    yield directory


def _publish(temporary: Path, target: Path) -> None:
    mask = _umask()
    for path in _tree(temporary):
        # Some libraries make files that nobody else may read.
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _system_error(error: Exception, directory: Path) -> OSError | None:
    """Return the operating system's error behind one of a library that wraps it, as safetensors and torch do."""
    if match := re.search(r"os error (\d+)", str(error)):
        return OSError(int(match[1]), os.strerror(int(match[1])))
    if shutil.disk_usage(directory).free < 1 << 16:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def _write_error(target: Path, error: OSError) -> FtError:
    reason = error.strerror or str(error)
    remedy = (
        "free space there or give another --output_dir"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        else "give a directory that can be written"
    )
    return FtError(f"{target} can't be written: {reason}; {remedy}")
