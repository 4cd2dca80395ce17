"""Whether what a method needs is installed, asked before any work."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ft_core.errors import DependencyError, UsageError
from ft_quant.methods import METHODS, QuantMethod

_ASK = (
    "import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if u.find_spec(n) is None))"
)


def check_installed(method: QuantMethod, *, python: str | None, verify: bool) -> None:
    """Refuse a method whose packages are missing.

    Args:
        method: who quantizes.
        python: another environment's interpreter; ``None`` asks this one.
        verify: whether the result is loaded too.

    Raises:
        DependencyError: naming the package and what installs it.
        UsageError: ``python`` is no interpreter that works.
    """
    known = METHODS[method]
    if lacking := _missing(known.modules, python):
        raise DependencyError(
            f"--quant_method {method}", known.package, _remedy(known.install, lacking, python)
        )
    if verify and (lacking := _missing(known.loads, python)):
        raise DependencyError(
            f"loading what --quant_method {method} writes, to verify it,",
            known.package,
            f"{_remedy(known.install, lacking, python)}, or leave the verification out with --verify false",
        )


def _remedy(install: str, lacking: Sequence[str], python: str | None) -> str:
    if python is None:
        return install
    return f"{python} has no {', '.join(lacking)}; there, {install}"


def _missing(modules: Sequence[str], python: str | None) -> list[str]:
    if python is None:
        return [name for name in modules if importlib.util.find_spec(name) is None]
    if not Path(python).is_file():
        raise UsageError(f"--quant_python {python}: there is no such file; give an interpreter")
    try:
        done = subprocess.run(
            [python, "-c", _ASK, *modules], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"--quant_python {python}: doesn't run as a Python: {error}") from error
    return done.stdout.split()
