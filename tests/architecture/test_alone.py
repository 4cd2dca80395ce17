"""Each wheel works with nothing of ours beside it but what it declares: for a leaf, ft-core."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
TOOLS = ("pytest", "pytest-asyncio")
TESTED_WITH = {
    "ft-core": ("model", "media", "gguf", "bnb", "hqq"),
    "ft-align": ("online",),
    "ft-serve": ("constraints", "media"),
    "ft-ui": ("gradio",),
}
"""Extras that the tests of a package need; added once the package has shown to work without."""
ORACLES = {"ft-core": ("trl",), "ft-serve": ("openai", "jsonschema")}
"""Other people's packages that the tests of a package compare with."""

IMPORT_ALL = """
import importlib, importlib.util, json, pkgutil, sys
name, optional, strangers = json.loads(sys.argv[1])
module = importlib.import_module(name)
for found in pkgutil.walk_packages(module.__path__, name + "."):
    if found.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in optional:
            raise
seen = [stranger for stranger in strangers if importlib.util.find_spec(stranger) is not None]
assert not seen, f"can see {seen}"
assert "/src/" not in module.__file__, module.__file__
"""


def run(*words: str | Path) -> None:
    """Run a program in the repository's root, away from this process's own environment."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL", "PYTEST"))
    }
    result = subprocess.run(
        list(map(str, words)),
        cwd=ROOT,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-4000:]


@pytest.mark.accept
@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_works_alone(package: str, environments: Any, tmp_path: Path) -> None:
    environment = environments.install(package, tmp_path / "env")
    if package != "ft-cli":
        assert environment.ours == {"ft-core", package}
    python = environment.bin / "python"

    others = [name.replace("-", "_") for name in PACKAGES if name not in environment.ours]
    optional = sorted(environments.optional_modules(package))
    question = json.dumps([package.replace("-", "_"), optional, others])
    run(python, "-I", "-c", IMPORT_ALL, question)

    for script in environments.wheels[package].scripts:
        run(environment.bin / script, "--help")

    environment.link([Requirement(name) for name in (*TOOLS, *ORACLES.get(package, ()))])
    environment.link(environments.extra(package, *TESTED_WITH.get(package, ())))
    tests = ROOT / "packages" / package / "tests"
    run(
        *(python, "-m", "pytest", tests, "-q", "-p", "no:cacheprovider"),
        *("-m", "not slow and not gpu and not accept", "--basetemp", tmp_path / "pytest"),
    )


@pytest.mark.slow
def test_what_is_not_declared_is_not_found(environments: Any, tmp_path: Path) -> None:
    environment = environments.install("ft-data", tmp_path / "env")
    for stranger in ("ft_train", "ft_cli", "torch", "trl"):
        with pytest.raises(AssertionError, match=f"No module named '{stranger}'"):
            run(environment.bin / "python", "-c", f"import ft_data, {stranger}")
