"""What the studio's forms make of the real commands: nothing that runs code, and help in Chinese."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ft_cli.main import TABLE
from ft_core.registry import load_object
from ft_ui.studio.forms import Form, form_of
from ft_ui.studio.presets import FIRST, PRESETS, presets_of
from ft_ui.studio.workplace import Workplace
from ft_ui.words import words_in

COMMANDS = ("sft", "pt", "rlhf", "export", "merge-lora", "eval", "deploy")
RUNS_CODE = re.compile(
    r"\b(?:code|programs?|Python|\.py|interpreter|converter|plug-?ins?)\b", re.IGNORECASE
)
HARMLESS: frozenset[str] = frozenset()
"""Flags that only sound like it."""


def form(command: str) -> Form:
    return form_of(load_object(TABLE[command].target))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_that_runs_code_or_keeps_a_secret_is_on_a_page(command: str) -> None:
    fields = form(command).fields
    suspicious = {
        name
        for name, field in fields.items()
        if RUNS_CODE.search(f"{name.replace('_', ' ')} {field.flag.help}")
        or re.search(r"token$|api_key|password|secret", name)
    }
    assert suspicious - HARMLESS == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_first_fields_and_presets_are_flags_of_the_command(command: str) -> None:
    known = frozenset(form(command).fields)
    assert set(FIRST.get(command, ())) <= known
    offered = presets_of(command, known)
    assert set(offered) == set(PRESETS.get(command, {})), "every preset is offered"


@pytest.mark.parametrize("command", COMMANDS)
def test_presets_are_accepted_by_the_command(command: str, tmp_path: Path) -> None:
    workplace, made = Workplace(tmp_path.resolve()), form(command)
    for name, values in presets_of(command, frozenset(made.fields)).items():
        problems = [made.problem_of(flag, text, workplace) for flag, text in values.items()]
        assert not any(problems), (name, problems)


def test_help_of_flags_is_chinese_too() -> None:
    chinese = words_in("zh").flags
    flags = {name for command in COMMANDS for name in form(command).fields}
    missing = flags - set(chinese)
    assert len(missing) <= len(flags) // 20, sorted(missing)
    assert all(re.search(r"[\u4e00-\u9fff]", text) for text in chinese.values())


def run(*words: object, cwd: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_pages_are_refused_half_a_password_and_a_taken_port(tmp_path: Path) -> None:
    code, _, said = run("web-ui", "--auth", "me", cwd=tmp_path)
    assert code == 2 and "user:password" in said
    code, _, said = run("web-ui", "--work_dir", "nowhere", cwd=tmp_path)
    assert code == 2 and "--work_dir nowhere" in said
    code, out, _ = run("web-ui", "--print_config", cwd=tmp_path)
    values = json.loads(out)["arguments"]
    assert code == 0 and values["lang"]["value"] == "zh" and values["port"]["value"] is None
