"""Processes and ranks: re-executing a command under torchrun, and who this process is."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from ft_core.errors import FtError, UsageError

T = TypeVar("T")

MULTI_PROCESS = ("NPROC_PER_NODE", "NNODES")
TORCHRUN = "torch.distributed.run"
INTERRUPTED = 130


def launch_command(
    module: str,
    argv: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    always: bool = False,
) -> list[str] | None:
    """Return the torchrun command that the environment asks for, or ``None``.

    ``NPROC_PER_NODE`` or ``NNODES`` ask for one; ``NODE_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` are
    passed on. A process that torchrun started itself (``LOCAL_RANK`` is set) asks for nothing.

    Args:
        module: what ``python -m`` runs.
        argv: its words.
        environ: variables; ``None`` takes those of this process.
        always: start one process by torchrun where the environment asks for no number of them.

    Raises:
        UsageError: one of the variables isn't a number, or several nodes don't know where to meet.
    """
    env = os.environ if environ is None else environ
    asked = always or any(env.get(name) for name in MULTI_PROCESS)
    if "LOCAL_RANK" in env or not asked:
        return None
    command = [sys.executable, "-m", TORCHRUN]
    options = (
        ("--nproc_per_node", "NPROC_PER_NODE", "1"),
        ("--nnodes", "NNODES", "1"),
        ("--node_rank", "NODE_RANK", None),
        ("--master_addr", "MASTER_ADDR", None),
        ("--master_port", "MASTER_PORT", None),
    )
    for option, name, default in options:
        value = env.get(name) or default
        if value is None:
            continue
        if name != "MASTER_ADDR" and not value.isdigit():
            raise UsageError(f"{name}={value}: expected a number")
        command += [option, value]
    if int(env.get("NNODES") or 1) == 1:
        if not env.get("MASTER_PORT"):
            command.append("--standalone")  # takes a free port
    elif missing := [name for name in ("NODE_RANK", "MASTER_ADDR") if not env.get(name)]:
        raise UsageError(
            f"NNODES={env['NNODES']} needs {' and '.join(missing)} too: the number of this node, and the address of "
            "node 0"
        )
    return [*command, "-m", module, *argv]


def relaunch(module: str, argv: Sequence[str], *, always: bool = False) -> int | None:
    """Run the command under torchrun where the environment asks for it; return its exit code, else ``None``.

    torchrun works in this process, starts the others in sessions of their own, and passes SIGTERM and Ctrl-C on
    to them once.
    """
    command = launch_command(module, argv, always=always)
    return None if command is None else _torchrun(command[command.index(TORCHRUN) + 1 :])


def _torchrun(words: Sequence[str]) -> int:
    """Run torchrun and return the exit code of the first process that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # A checkpoint is saved after a signal, which takes longer than torchrun's own 30 seconds.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    arguments = parse_args(words)  # type: ignore[no-untyped-call]
    if "OMP_NUM_THREADS" not in os.environ:  # torchrun would leave one core to each
        threads = max(1, len(os.sched_getaffinity(0)) // int(arguments.nproc_per_node))
        os.environ["OMP_NUM_THREADS"] = str(threads)
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    logging.getLogger("torch.distributed.elastic.multiprocessing").setLevel(logging.CRITICAL)
    try:
        run(arguments)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException:
        return INTERRUPTED
    return 0


def rank() -> int:
    """Return this process's rank over all nodes; 0 when there is only one process."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes over all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes what only one process should."""
    return rank() == 0


def node() -> int:
    """Return the number of the node this process is on."""
    return int(os.environ.get("GROUP_RANK", "0"))


def is_first_of_node() -> bool:
    """Whether this is the first process on its node."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def gather(value: T) -> list[T]:
    """Return what every process has, by rank; all of them must call it, with a process group."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    gathered: list[T] = [value] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def share(value: T) -> T:
    """Return the first process's value on all of them; all must call it, with a process group."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_main(work: Callable[[], T]) -> T:
    """Do something in the first process, and return what it gives, or raise its error, in all of them."""
    outcome: tuple[T | None, FtError | None] = (None, None)
    if is_main():
        try:
            outcome = (work(), None)
        except FtError as error:
            if world_size() == 1:
                raise
            outcome = (None, error)
    value, failure = share(outcome)
    if failure is not None:
        raise failure
    return cast(T, value)
