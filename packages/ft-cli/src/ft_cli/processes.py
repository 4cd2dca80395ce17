"""Starting the processes that a command asks for, and joining them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ft_core.command import Invocation
from ft_core.launch import relaunch
from ft_train.distributed_arguments import DistributedArguments


@contextmanager
def processes(invocation: Invocation) -> Iterator[None]:
    """Do the body in as many processes as NPROC_PER_NODE and NNODES say, which can talk to each other.

    Raises:
        SystemExit: in the process that started the others, once they have ended.
        UsageError: the processes don't suit the flags or the machine.
    """
    division = invocation.get(DistributedArguments).division()
    alone = division.needs_processes and not invocation.dry_run
    if (code := relaunch("ft_cli", invocation.argv, always=alone)) is not None:
        raise SystemExit(code)
    from ft_train.distributed.processes import process_group

    with process_group(division):
        yield
