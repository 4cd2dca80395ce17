"""The command line contract: values, sources, files, messages and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import pytest
import yaml

from ft_core.command import ArgumentGroup, Command, Entry, Invocation, flag, run_commands
from ft_core.command.completion import candidates
from ft_core.command.run import print_schema
from ft_core.errors import FtError, UsageError


class Kitchen(ArgumentGroup):
    """Flags of every kind."""

    title: ClassVar[str] = "kitchen"

    dish: Literal["soup", "pie"] = "soup"
    """What is cooked."""

    level: Literal[0, 1] = 0
    """How hot."""

    servings: int = flag(2, ge=1, aliases=("per_device_servings",))
    """For how many."""

    salt: float | None = None
    """How much salt; none leaves it to the cook."""

    hot: bool = False
    """Serve hot."""

    guests: list[str] = flag([])
    """Who comes."""

    shops: list[str] = flag([], commas=True)
    """Where to buy."""

    extras: dict[str, Any] | None = None
    """More."""

    title_text: str = "plain"
    """A text."""

    secret_sauce: str | None = flag(None, secret=True, env="SECRET_SAUCE")
    """Never shown."""

    old_dish: str | None = flag(None, deprecated="use --dish")
    """The old way."""

    def check(self, given: frozenset[str]) -> None:
        """Soup isn't served to nobody."""
        if "hot" in given and self.dish == "pie":
            raise UsageError(
                "--hot can't be used with --dish pie: pies are served cold; drop --hot"
            )


seen: list[Invocation] = []


def saved(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Two saved values, one of which this command doesn't have."""
    return {"salt": 0.5, "unknown_to_cook": 1} if values["title_text"] == "again" else {}


def fail(invocation: Invocation) -> None:
    """Fail as a command does."""
    raise FtError("the oven is broken; repair it")


COOK = Command(
    "cook",
    "Cook something.",
    (Kitchen,),
    seen.append,
    defaults={"servings": 3},
    saved=saved,
    dry_run=True,
)
FAIL = Command("fail", "Fail.", (), fail)
LOOK = Command("look", "Look at things.", (Kitchen,), seen.append, positional="guests")


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("kitchen_commands")
    module.COOK, module.FAIL, module.LOOK = COOK, FAIL, LOOK  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kitchen_commands", module)
    seen.clear()


TABLE = {
    "cook": Entry("Cook something.", "kitchen_commands:COOK", aliases=("make",)),
    "fail": Entry("Fail.", "kitchen_commands:FAIL"),
    "look": Entry("Look at things.", "kitchen_commands:LOOK"),
}


def test_a_table_within_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["kitchen_commands"], "TABLE", TABLE, raising=False)
    outer = {"kitchen": Entry("Cook or look.", "kitchen_commands:TABLE")}
    assert run_commands("ft", outer, ["kitchen", "cook"]) == 0 and len(seen) == 1
    assert run_commands("ft", outer, ["kitchen", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Cook or look." in shown and "usage: ft kitchen COMMAND" in shown and "look" in shown
    assert run_commands("ft", outer, ["kitchen", "cok"]) == 2
    assert "See ft kitchen --help" in capsys.readouterr().err
    assert candidates("ft", outer, ["kitchen", "co"]) == ["cook"]
    print_schema("ft", outer, "kitchen cook")
    assert "properties" in json.loads(capsys.readouterr().out)


def cook(*words: str) -> Kitchen:
    assert run_commands("ft", TABLE, ["cook", *words]) == 0
    return seen[-1].get(Kitchen)


def refuse(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert run_commands("ft", TABLE, list(words)) == code
    return capsys.readouterr().err


def config_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run_commands("ft", TABLE, ["cook", *words, "--print_config", "json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert data["command"] == "cook"
    return data["arguments"]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--dish", "pie"], "dish", "pie"),
        (["--dish=pie"], "dish", "pie"),
        (["--level", "1"], "level", 1),
        (["--per-device-servings", "7"], "servings", 7),
        (["--salt", "-0.5"], "salt", -0.5),
        (["--salt", "none"], "salt", None),
        (["--hot"], "hot", True),
        (["--hot", "false"], "hot", False),
        (["--hot", "True"], "hot", True),
        (["--hot", "--salt", "1"], "hot", True),
        (["--guests", "a", "b,c"], "guests", ["a", "b,c"]),
        (["--shops", "a,b", "c"], "shops", ["a", "b", "c"]),
        (["--guests", '["x", "y"]'], "guests", ["x", "y"]),
        (["--guests"], "guests", []),
        (["--extras", '{"a": [1]}'], "extras", {"a": [1]}),
        (["--title-text", "-x"], "title_text", "-x"),
        (["--title_text=--x"], "title_text", "--x"),
        (["--title_text", ""], "title_text", ""),
        ([], "servings", 3),
        (["--servings", "5", "--servings", "6"], "servings", 6),
    ],
)
def test_values(words: list[str], field: str, value: Any) -> None:
    assert getattr(cook(*words), field) == value


def test_dict_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "extras.json"
    file.write_text('{"b": 2}')
    assert cook("--extras", str(file)).extras == {"b": 2}


def test_a_file_name_with_a_comma_is_one_item(tmp_path: Path) -> None:
    file = tmp_path / "a,b.jsonl"
    file.write_text("")
    assert cook("--shops", f"{file}#3").shops == [f"{file}#3"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--servngs", "3"], ["unknown flag --servngs", "--servings"]),
        (["--dish", "cake"], ["--dish cake", "soup, pie"]),
        (["--servings", "0"], ["--servings 0", "at least 1"]),
        (["--servings", "two"], ["--servings two", "an integer"]),
        (["--servings"], ["--servings needs a value"]),
        (["--extras", "{broken"], ["--extras {broken", "JSON"]),
        (["stray"], ["unexpected word 'stray'"]),
        (["--hot", "--dish", "pie"], ["--hot", "--dish pie", "drop --hot"]),
        (["--config", "missing.yaml"], ["--config missing.yaml", "No such file"]),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]) -> None:
    message = refuse(capsys, "cook", *words)
    assert all(part in message for part in parts), message
    assert "Traceback" not in message


def test_unknown_flags_can_be_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cook("--nonsense", "1", "2", "--ignore_args_error", "true", "--servings", "9").servings == 9
    )
    assert "ignored: unknown flag --nonsense" in capsys.readouterr().err


def test_unknown_command_and_failures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Did you mean cook?" in refuse(capsys, "cok")
    assert refuse(capsys, "fail", code=1) == "error: the oven is broken; repair it\n"
    monkeypatch.setenv("FT_DEBUG", "1")
    assert "Traceback" in refuse(capsys, "fail", code=1)


def test_interruption_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(invocation: Invocation) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["kitchen_commands"], "COOK", Command("cook", "", (), interrupt))
    assert run_commands("ft", TABLE, ["cook"]) == 130


def test_sources_and_precedence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("title_text: again\nsalt: 0.7\nlevel: 1\nguests: [a, b]\n")
    shown = config_of(capsys, "--config", str(config), "--level", "0")
    assert shown["dish"] == {"value": "soup", "source": "default"}
    assert shown["servings"] == {"value": 3, "source": "command"}
    assert shown["salt"] == {"value": 0.7, "source": "config"}
    assert shown["level"] == {"value": 0, "source": "cli"}
    assert shown["guests"] == {"value": ["a", "b"], "source": "config"}
    shown = config_of(capsys, "--title_text", "again")
    assert shown["salt"] == {"value": 0.5, "source": "checkpoint"}
    monkeypatch.setenv("SECRET_SAUCE", "basil")
    assert config_of(capsys)["secret_sauce"] == {"value": None, "source": "env"}
    assert cook().secret_sauce == "basil"
    assert "secret_sauce" not in seen[-1].plain()


def test_yaml_output_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--guests", "é", "2", "--salt", "1.5", "--hot"]
    before = config_of(capsys, *words)
    assert run_commands("ft", TABLE, ["cook", *words, "--print_config", "yaml"]) == 0
    file = tmp_path / "c.yaml"
    file.write_text(capsys.readouterr().out)
    after = config_of(capsys, "--config", str(file))
    assert {k: v["value"] for k, v in before.items()} == {k: v["value"] for k, v in after.items()}
    assert yaml.safe_load(file.read_text())["guests"] == ["é", "2"]


def test_json_output_is_a_config_that_keeps_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"command": "cook", "arguments": config_of(capsys, "--salt", "2")}))
    shown = config_of(capsys, "--config", str(file))
    assert shown["salt"] == {"value": 2.0, "source": "config"}
    assert shown["dish"]["source"] == "default"


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("servngs: 3", "c.yaml", "unknown flag 'servngs'"),
        ("servings: many", "c.yaml", "--servings many"),
        ("servings: 0", "c.yaml", "(from config)"),
        ("a: [", "c.yaml", "invalid YAML"),
        ("{", "c.json", "c.json:1: invalid JSON"),
        ("- a", "c.yaml", "expected flags"),
    ],
)
def test_bad_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, name: str, part: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert part in refuse(capsys, "cook", "--config", str(file))


def test_deprecated_flags_say_what_to_use(capsys: pytest.CaptureFixture[str]) -> None:
    cook("--old_dish", "x")
    assert "--old_dish is deprecated: use --dish" in capsys.readouterr().err


def test_dry_run_is_offered_where_it_means_something(capsys: pytest.CaptureFixture[str]) -> None:
    cook("--dry_run")
    assert seen[-1].dry_run
    assert "unknown flag --dry_run" in refuse(capsys, "look", "--dry_run")


def test_positional_words() -> None:
    assert run_commands("ft", TABLE, ["look", "a", "b", "--salt", "1"]) == 0
    assert seen[-1].get(Kitchen).guests == ["a", "b"]


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_commands("ft", TABLE, ["make", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in Kitchen.model_fields)
    assert "{soup,pie}" in text and "Who comes." in text and "(default: 3)" in text


def test_a_flag_in_two_groups_is_a_mistake() -> None:
    class Other(ArgumentGroup):
        """Another group."""

        salt: int = 1
        """Salt again."""

    from ft_core.command.flags import flags_of

    with pytest.raises(ValueError, match="salt"):
        flags_of((Kitchen, Other))


def test_completion_offers_commands_flags_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    def offered(*words: str) -> list[str]:
        assert run_commands("ft", TABLE, ["__complete", *words]) == 0
        return capsys.readouterr().out.split()

    assert offered("co") == ["cook"]
    assert offered("cook", "--s") == ["--servings", "--salt", "--shops", "--secret_sauce"]
    assert offered("cook", "--dish", "") == ["soup", "pie"]
    assert offered("cook", "--hot", "") == ["true", "false"]
    assert run_commands("ft", TABLE, ["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "allowed are bash, zsh, fish" in refuse(capsys, "completion", "csh")


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "import sys\nfrom ft_core.command.run import Entry, run_commands\n"
        "table = {f'c{i}': Entry('x' * 100, '') for i in range(2000)}\n"
        "sys.exit(run_commands('ft', table, ['--help']))\n"
    )
    done = subprocess.run(
        f"{sys.executable} {script} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" and done.stdout.startswith("usage")
