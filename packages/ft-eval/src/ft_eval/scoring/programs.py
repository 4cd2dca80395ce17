"""Programs that a model wrote, run in a sandbox, and pass@k (Chen et al. 2021, arXiv:2107.03374)."""

from __future__ import annotations

import math
import os
import re
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files

from ft_core.errors import FtError
from ft_eval.tasks.task import Item

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)
_SAID = 2000
"""Characters of a program's output that are kept."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended.

    Attributes:
        passed: all its tests passed.
        program: what was run.
        said: the end of what it printed, or why it was stopped.
    """

    passed: bool
    program: str
    said: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Runs programs in processes of their own that can do little.

    A program runs without network and without rights in namespaces of its own, sees an empty environment,
    may write only to a directory that is deleted afterwards, and has limits of time, memory, file size and
    number of processes. Where the kernel doesn't offer one of the first three, nothing is run.

    Attributes:
        seconds: of processor and wall-clock time.
        memory: bytes of address space.
    """

    seconds: int = 10
    memory: int = 2 * 1024**3

    def run(self, item: Item, answer: str) -> Run:
        """Run a problem's tests on an answer.

        Raises:
            FtError: the sandbox can't be set up here.
        """
        program = assemble(item, answer)
        with tempfile.TemporaryDirectory(prefix="ft-sandbox-") as directory:
            return self.execute(program, directory)

    def execute(self, program: str, directory: str) -> Run:
        """Run a program that may write in one directory only."""
        runner = str(files("ft_eval.scoring").joinpath("sandbox_child.py"))
        end = secrets.token_hex(16)
        limits = [str(self.seconds), str(self.memory), directory, end]
        # A process group of its own, so that what the program starts is stopped with it.
        child = subprocess.Popen(
            [sys.executable, "-I", runner, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={"PATH": "/usr/bin:/bin", "HOME": directory, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(program.encode(), timeout=self.seconds + 5)
        except subprocess.TimeoutExpired:
            return Run(False, program, f"stopped after {self.seconds} s")
        finally:
            _kill(child)
        text = output.decode(errors="replace").rstrip("\n")
        if child.returncode == UNAVAILABLE:
            raise FtError(
                f"--run_code true: no sandbox can be set up here ({text.strip()}); run it on Linux 5.13 or later "
                "where user namespaces and Landlock are allowed"
            )
        passed = child.returncode == 0 and text.endswith(f"\n{end}")
        return Run(passed, program, text.removesuffix(f"\n{end}")[-_SAID:])


UNAVAILABLE = 97
"""Exit status of the child where the kernel offers no sandbox."""


def _kill(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, 9)
    except ProcessLookupError:
        return
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def assemble(item: Item, answer: str) -> str:
    """Return the program of a problem: the answer's function with the problem's tests.

    An answer that defines the function stands on its own, after the problem's imports; any other continues
    the problem's text.
    """
    entry = str(item.extra["entry_point"])
    beginning = str(item.extra["code"])
    blocks = _BLOCK.findall(answer)
    defining = [block for block in blocks if re.search(rf"^def\s+{entry}\b", block, re.M)]
    if defining:
        imports = beginning.partition(f"def {entry}")[0]
        body = f"{imports}\n{defining[-1]}"
    elif re.search(rf"^def\s+{entry}\b", answer, re.M):
        body = f"{beginning.partition(f'def {entry}')[0]}\n{answer}"
    else:
        body = beginning + (blocks[0] if blocks else answer)
    return f"{body}\n\n{item.extra['test']}\n\ncheck({entry})\n"


def pass_at_k(drawn: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k programs passes.

    Args:
        drawn: programs that were run.
        passed: those of them that passed.
        k: at most ``drawn``.
    """
    if drawn - passed < k:
        return 1.0
    return 1.0 - math.comb(drawn - passed, k) / math.comb(drawn, k)
