"""One directory that all processes of a run write into, and that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ft_core.checkpoints import atomic_directory
from ft_core.errors import FtError
from ft_core.launch import gather, node, rank


@contextmanager
def shared_directory(target: Path, *, publishes: bool) -> Iterator[Path]:
    """Write a directory together; all processes must enter and leave.

    Args:
        target: the directory to make; one that exists is exchanged.
        publishes: whether this process makes the directory and gives it its name. Where one on each node
            does, each node gets a directory of its own.

    Raises:
        FtError: one of the processes couldn't write; then nothing is left, and all of them raise.
    """
    with ExitStack() as stack:
        made: Path | None = None
        with agreed():
            if publishes:
                made = stack.enter_context(atomic_directory(target, replace=True))
        places = [(owner, path) for owner, path in gather((node(), made)) if path is not None]
        with agreed():
            yield dict(places).get(node(), places[0][1])
        with agreed():
            stack.close()


@contextmanager
def agreed() -> Iterator[None]:
    """Raise in all processes what one of them raises in the body; all must enter and leave.

    Raises:
        FtError: another process failed.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    found = gather(None if failure is None else f"process {rank()} failed: {failure}")
    if failure is not None:
        raise failure
    if other := next((text for text in found if text is not None), None):
        raise FtError(other)
