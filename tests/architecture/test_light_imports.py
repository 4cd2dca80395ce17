"""Importing the declarations and asking for help must not cost the import of a deep-learning library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "safetensors",
    "tensorboard",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "gradio",
    "vllm",
    "modelscope",
)
REPORT = """
import json, sys
def report(path, heavy):
    loaded = sorted(name for name in heavy if name in sys.modules)
    open(path, "w", encoding="utf-8").write(json.dumps(loaded))
"""
IMPORTS = REPORT + "import {modules}\nreport({path!r}, {heavy!r})\n"
COMMAND = REPORT + (
    "from ft_cli.main import main\ncode = main({words!r})\nreport({path!r}, {heavy!r})\nsys.exit(code)\n"
)


def loaded_by(program: str, tmp_path: Path, **values: object) -> list[str]:
    """Run a program in a fresh interpreter and return which heavy modules it loaded."""
    report = tmp_path / "loaded.json"
    code = program.format(path=str(report), heavy=HEAVY, **values)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded: list[str] = json.loads(report.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize(
    "modules",
    [
        "ft_core, ft_data, ft_cli",
        "ft_align, ft_eval, ft_quant, ft_serve, ft_train, ft_ui",
        "ft_core.command, ft_core.arguments, ft_core.templates, ft_core.models, ft_core.tuners",
    ],
)
def test_importing_packages_loads_nothing_heavy(modules: str, tmp_path: Path) -> None:
    assert loaded_by(IMPORTS, tmp_path, modules=modules) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["sft", "--help"],
        ["sft", "--print_config"],
        ["pt", "--print_config", "yaml"],
        ["infer", "--print_config"],
        ["merge-lora", "--print_config"],
        ["app-ui", "--print_config"],
        ["web-ui", "--print_config"],
        ["config-schema", "sft"],
        ["list", "models"],
        ["list", "templates"],
        ["list", "datasets"],
        ["runs", "--output_dir", "."],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    assert loaded_by(COMMAND, tmp_path, words=words) == []


def test_the_check_sees_a_heavy_import(tmp_path: Path) -> None:
    assert "torch" in loaded_by(IMPORTS, tmp_path, modules="torch")
