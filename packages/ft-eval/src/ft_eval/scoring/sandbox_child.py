"""The process in which a program of a model runs; started by path, with nothing of ft imported.

It gives up the network and all rights, keeps writing to one directory, sets limits, and then runs the
program it reads from standard input. It ends with 97 where the kernel doesn't let it.
"""

import ctypes
import os
import resource
import sys

UNAVAILABLE = 97
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG = 38, 1
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
WRITE_FILE, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
MAKE = sum(1 << bit for bit in range(6, 13))
REFER, TRUNCATE = 1 << 13, 1 << 14
O_PATH = 0o10000000


class RulesetAttribute(ctypes.Structure):
    """``struct landlock_ruleset_attr``: what is forbidden unless a rule allows it."""

    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class PathAttribute(ctypes.Structure):
    """``struct landlock_path_beneath_attr``: what is allowed below a directory."""

    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


LIBC = ctypes.CDLL(None, use_errno=True)


def demand(result: int, what: str) -> int:
    """End the process where the kernel refused."""
    if result < 0:
        print(f"{what}: {os.strerror(ctypes.get_errno())}", flush=True)
        os._exit(UNAVAILABLE)
    return result


def confine(directory: str) -> None:
    """Give up network, rights, and writing outside of the directory."""
    user, group = os.getuid(), os.getgid()
    namespaces = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC
    demand(LIBC.unshare(namespaces), "namespaces")
    # Nobody inside: a root inside could mount and trace.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"65534 {user} 1"),
        ("gid_map", f"65534 {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text)
    demand(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    LIBC.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    abi = demand(LIBC.syscall(CREATE_RULESET, None, 0, 1), "Landlock")
    writing = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE
    writing |= (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0)
    attribute = RulesetAttribute(writing)
    ruleset = demand(
        LIBC.syscall(CREATE_RULESET, ctypes.byref(attribute), ctypes.sizeof(attribute), 0),
        "Landlock",
    )
    below = os.open(directory, O_PATH | os.O_CLOEXEC)
    rule = PathAttribute(writing, below)
    demand(LIBC.syscall(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0), "Landlock")
    demand(LIBC.syscall(RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(below)
    os.close(ruleset)


def limit(seconds: int, memory: int) -> None:
    """Set limits that the program can't raise."""
    limits = (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 16 * 1024**2),
        (resource.RLIMIT_NPROC, 64),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Read the program, confine this process, run it."""
    seconds, memory, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    # Only a program that came to its end prints this line: one that exits early hasn't passed its tests.
    end, sys.argv = sys.argv[4], ["program.py"]
    program = sys.stdin.buffer.read()
    confine(directory)
    limit(seconds, memory)
    code = compile(program, "program.py", "exec")
    exec(code, {"__name__": "program"})
    print(f"\n{end}", flush=True)


main()
