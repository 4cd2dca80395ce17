"""What a command shows of itself: help, resolved configuration, JSON schema."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any, Literal

from ft_core.command.command import Command, Invocation
from ft_core.command.flags import Flag, flags_of
from ft_core.command.resolve import all_groups, secret_names


def print_config(invocation: Invocation, form: Literal["json", "yaml"]) -> str:
    """Return the resolved arguments: JSON with each value's source, or YAML that ``--config`` reads."""
    secret = secret_names(tuple(invocation.groups))
    shown = {
        # A default is no secret; what was given is.
        name: {
            "value": item.value if name not in secret or item.source == "default" else None,
            "source": item.source,
        }
        for name, item in invocation.values.items()
    }
    if form == "json":
        return json.dumps(
            {"command": invocation.command.name, "arguments": shown}, indent=2, ensure_ascii=False
        )
    import yaml

    plain = {name: entry["value"] for name, entry in shown.items() if name not in secret}
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def config_schema(command: Command) -> dict[str, Any]:
    """Return the JSON schema of a command's configuration file."""
    properties: dict[str, Any] = {}
    flags = flags_of(all_groups(command))
    for group in all_groups(command):
        for name, schema in group.model_json_schema()["properties"].items():
            schema.pop("ft_flag", None)
            schema.pop("title", None)
            schema["default"] = command.defaults.get(name, flags[name].default)
            properties[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ft {command.name}",
        "description": command.summary,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def command_help(prog: str, command: Command) -> str:
    """Return the text of ``ft CMD --help``."""
    width = min(shutil.get_terminal_size().columns, 110)
    positional = f" {command.positional.upper()}" if command.positional else ""
    lines = [
        f"usage: {prog} {command.name}{positional} [--flag value …]",
        "",
        *textwrap.wrap(command.summary, width),
    ]
    flags = flags_of(all_groups(command))
    titles = list(dict.fromkeys(flag.group.title for flag in flags.values()))
    for title in titles:
        lines += ["", f"{title}:"]
        for flag in flags.values():
            if flag.group.title == title:
                lines += _flag_help(flag, command.defaults.get(flag.name, flag.default), width)
    lines += ["", "more:"]
    lines += _entry(
        "--print_config [json|yaml]",
        "Print the resolved arguments with their sources, and exit.",
        width,
    )
    if command.epilog:
        lines += ["", "examples:", *(f"  {line}" for line in command.epilog.strip().splitlines())]
    return "\n".join(lines)


def _flag_help(flag: Flag, default: Any, width: int) -> Iterable[str]:
    if flag.choices:
        value = (
            "{"
            + ",".join("none" if choice is None else str(choice) for choice in flag.choices)
            + "}"
        )
    elif flag.is_switch:
        value = "[true|false]"
    else:
        kind = "list" if flag.is_list else flag.kinds[0].__name__ if flag.kinds else "value"
        value = {"str": "TEXT", "int": "N", "float": "X", "list": "A B …", "dict": "JSON|FILE"}.get(
            kind, "VALUE"
        )
    shown = (
        "none"
        if default is None
        else json.dumps(default, ensure_ascii=False)
        if default != ""
        else "''"
    )
    text = f"{flag.help} (default: {shown})"
    if flag.info.aliases:
        text += f" Also --{', --'.join(flag.info.aliases)}."
    if flag.info.deprecated:
        text += f" Deprecated: {flag.info.deprecated}."
    return _entry(f"--{flag.name} {value}", text, width)


def _entry(head: str, text: str, width: int, column: int = 34) -> list[str]:
    body = textwrap.wrap(" ".join(text.split()), max(width - column, 30))
    head = f"  {head}"
    if len(head) >= column:
        return [head, *(" " * column + line for line in body)]
    first, rest = (body[0] if body else ""), body[1:]
    return [head.ljust(column) + first, *(" " * column + line for line in rest)]
