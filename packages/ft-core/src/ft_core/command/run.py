"""Running a table of commands: what every console script of ft calls."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.errors import FtError, UsageError, suggest
from ft_core.launch import rank

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a command table; nothing is imported until the command is used.

    Attributes:
        summary: one line for ``--help``.
        target: ``"module:attribute"`` of the ``Command``, or of a table of commands (``ft data check``).
        aliases: other names.
    """

    summary: str
    target: str
    aliases: tuple[str, ...] = ()


Table = Mapping[str, Entry]

PLUGINS = "ft.commands"
"""Entry points of further commands: ``name = "module:COMMAND"``."""


def run_commands(
    prog: str,
    table: Table,
    argv: Sequence[str] | None = None,
    *,
    distribution: str = "",
    intro: str = "",
) -> int:
    """Run the command that ``argv`` names and return the exit code (0, 1, 2 or 130).

    Args:
        prog: name of the console script.
        table: its commands.
        argv: the words after the script's name; the process's own if ``None``.
        distribution: the package whose version ``--version`` shows.
        intro: shown above the list of commands.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        _guarded(lambda: _print(_overview(prog, table, intro)))
        return 0 if words else UsageError.exit_code
    if words[0] in ("-V", "--version", "version"):
        from importlib.metadata import version

        _print(f"{prog} {version(distribution) if distribution else ''}".strip())
        return 0
    if words[0] in ("completion", "__complete"):
        return _guarded(lambda: _complete(prog, table, words))
    return _guarded(lambda: _run(prog, table, words))


def _guarded(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    except FtError as error:
        if os.environ.get("FT_DEBUG") == "1":
            traceback.print_exc()
        print(f"{_who()}error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{_who()}interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) is gone: keep Python from complaining while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _who() -> str:
    """Name this process where it is one of several and not the first."""
    return f"process {rank()}: " if rank() else ""


def _run(prog: str, table: Table, words: list[str]) -> int:
    from ft_core.command.command import Command
    from ft_core.registry import load_object

    entry = find(prog, table, words[0])
    command: Command | Table = load_object(entry.target)
    rest = words[1:]
    if isinstance(command, Mapping):
        return run_commands(f"{prog} {words[0]}", command, rest, intro=entry.summary)
    if any(word in ("-h", "--help") for word in rest):
        from ft_core.command.show import command_help

        _print(command_help(prog, command))
        return 0
    form, rest = _take_print_config(rest)

    from ft_core.command.resolve import resolve

    invocation = resolve(
        command, rest, warn=lambda text: print(f"warning: {text}", file=sys.stderr), prog=prog
    )
    if form is not None:
        from ft_core.command.show import print_config

        _print(print_config(invocation, form))
        return 0
    run = load_object(command.run) if isinstance(command.run, str) else command.run
    run(invocation)
    return 0


def _complete(prog: str, table: Table, words: list[str]) -> None:
    from ft_core.command.completion import candidates, completion_script

    if words[0] == "completion":
        _print(completion_script(prog, words[1] if len(words) > 1 else "bash"))
    else:
        _print("\n".join(candidates(prog, table, words[1:])))


def find(prog: str, table: Table, name: str) -> Entry:
    """Return the table's entry called ``name``, an alias, or a plug-in's command.

    Raises:
        UsageError: there is none; the message lists the closest names.
    """
    for known, entry in table.items():
        if name.replace("_", "-") in (known, *entry.aliases):
            return entry
    plugins = _plugins()
    if name in plugins:
        return plugins[name]
    raise UsageError(
        f"unknown command {name!r}.{suggest(name, [*table, *plugins])} See {prog} --help"
    )


def print_schema(prog: str, table: Table, name: str) -> None:
    """Print the JSON schema of the configuration file of the command called ``name``."""
    from ft_core.command.show import config_schema
    from ft_core.registry import load_object

    first, _, rest = name.partition(" ")
    found = load_object(find(prog, table, first).target)
    if isinstance(found, Mapping):
        print_schema(f"{prog} {first}", found, rest)
        return
    _print(json.dumps(config_schema(found), indent=2, ensure_ascii=False))


def _plugins() -> dict[str, Entry]:
    from importlib.metadata import entry_points

    return {
        point.name: Entry(f"from {point.dist.name}" if point.dist else "plug-in", point.value)
        for point in entry_points(group=PLUGINS)
    }


def _take_print_config(words: list[str]) -> tuple[Any, list[str]]:
    for index, word in enumerate(words):
        flag, equals, attached = word.partition("=")
        if flag.replace("-", "_") != "__print_config":
            continue
        rest = words[:index] + words[index + 1 :]
        form = attached if equals else "json"
        if not equals and index < len(rest) and not rest[index].startswith("-"):
            form = rest.pop(index)
        if form not in ("json", "yaml"):
            raise UsageError(f"--print_config {form}: allowed are json, yaml")
        return form, rest
    return None, words


def _overview(prog: str, table: Table, intro: str) -> str:
    lines = [intro, ""] if intro else []
    lines += [f"usage: {prog} COMMAND [--flag value …]", "", "commands:"]
    lines += [f"  {name:<14} {entry.summary}" for name, entry in table.items()]
    plugins = {name: entry for name, entry in _plugins().items() if name not in table}
    if plugins:
        lines += [
            "",
            "from plug-ins:",
            *(f"  {name:<14} {entry.summary}" for name, entry in plugins.items()),
        ]
    lines += ["", f"{prog} COMMAND --help shows a command's flags."]
    if " " not in prog:
        lines.append(
            f'eval "$({prog} completion bash)" completes them in the shell (also zsh, fish).'
        )
    return "\n".join(lines)


def _print(text: str) -> None:
    print(text)
    sys.stdout.flush()
