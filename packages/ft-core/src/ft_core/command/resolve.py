"""From words, files and environment to one validated value per flag, each with its source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ft_core.command.argv import Words, split_words
from ft_core.command.command import Command, Invocation, Resolved, ValueSource
from ft_core.command.config import read_config
from ft_core.command.flags import Flag, flags_of, names_of
from ft_core.command.group import ArgumentGroup, flag, flag_info
from ft_core.errors import UsageError, suggest

Warn = Callable[[str], None]


class CommonArguments(ArgumentGroup):
    """Flags every command has."""

    title = "command"

    config: str | None = None
    """YAML or JSON file with flags; the command line wins over it."""

    ignore_args_error: bool = False
    """Turn errors about unknown flags into warnings."""


class DryRunArguments(ArgumentGroup):
    """The flag of commands that can show what they would do."""

    title = "command"

    dry_run: bool = flag(False)
    """Do everything short of the work: resolve, check, show, estimate."""


def resolve(
    command: Command,
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    warn: Warn,
    prog: str = "ft",
) -> Invocation:
    """Merge defaults, command, checkpoint, config file, environment and command line, and validate.

    Args:
        command: the command.
        argv: the words after its name.
        environ: the environment; the process's own if ``None``.
        warn: is told of deprecated flags, and of unknown ones under ``--ignore_args_error``.
        prog: what is typed before the command's name.

    Raises:
        UsageError: unknown flags, bad values, or flags that exclude each other.
    """
    groups = all_groups(command)
    flags = flags_of(groups)
    words = split_words(argv, flags, command.positional, command.elsewhere)
    layers = _layers(command, flags, words, os.environ if environ is None else environ, warn, prog)
    values = _merge(flags, layers)
    built = _validate(groups, flags, values)
    given = frozenset(
        name for name, item in values.items() if item.source not in ("default", "command")
    )
    _warn_of_deprecated(flags, values, warn)
    for instance in built.values():
        instance.check(given)
    public = {
        name: item
        for name, item in values.items()
        if flags[name].group not in (CommonArguments, DryRunArguments)
        or name == "ignore_args_error"
    }
    dry_run = "dry_run" in values and bool(values["dry_run"].value)
    invocation = Invocation(command, public, built, (command.name, *argv), dry_run)
    for check in command.checks:
        check(invocation)
    return invocation


def all_groups(command: Command) -> tuple[type[ArgumentGroup], ...]:
    """Return the command's groups with those every command has."""
    return (*command.groups, CommonArguments, *((DryRunArguments,) if command.dry_run else ()))


def _layers(
    command: Command,
    flags: Mapping[str, Flag],
    words: Words,
    environ: Mapping[str, str],
    warn: Warn,
    prog: str,
) -> list[tuple[ValueSource, dict[str, Any]]]:
    cli = {name: flags[name].convert(following) for name, following in words.values.items()}
    env = {
        name: flag.convert([environ[flag.info.env]])
        for name, flag in flags.items()
        if flag.info.env is not None and environ.get(flag.info.env)
    }
    config = _from_config(cli["config"], flags) if cli.get("config") else ({}, [])
    known, unknown = config
    unknown = [*words.unknown, *unknown]
    if unknown:
        if not ({**known, **cli}).get("ignore_args_error"):
            raise UsageError("\n".join(unknown) + f"\nSee {prog} {command.name} --help")
        for sentence in unknown:
            warn(f"ignored: {sentence}")
    layers: list[tuple[ValueSource, dict[str, Any]]] = [
        ("config", known),
        ("env", env),
        ("cli", cli),
    ]
    if command.saved is not None:
        merged = {
            name: item.value
            for name, item in _merge(flags, [("command", dict(command.defaults)), *layers]).items()
        }
        saved = {name: value for name, value in command.saved(merged).items() if name in flags}
        layers.insert(0, ("checkpoint", saved))
    return [("command", dict(command.defaults)), *layers]


def _from_config(path: str, flags: Mapping[str, Flag]) -> tuple[dict[str, Any], list[str]]:
    names = names_of(flags)
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in read_config(path).items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            unknown.append(f"--config {path}: unknown flag {key!r}.{suggest(key, names)}")
            continue
        known[name] = _from_file(flags[name], value)
    return known, unknown


def _from_file(flag: Flag, value: Any) -> Any:
    """Give a file's value the treatment of the command line where it is text for something else."""
    if flag.is_list and isinstance(value, str):
        return flag.convert([value])
    if isinstance(value, str) and (flag.choices or str not in flag.kinds):
        return flag.convert([value])
    return value


def _merge(
    flags: Mapping[str, Flag], layers: Sequence[tuple[ValueSource, Mapping[str, Any]]]
) -> dict[str, Resolved]:
    values = {name: Resolved(flag.default, "default") for name, flag in flags.items()}
    for source, layer in layers:
        for name, value in layer.items():
            values[name] = Resolved(value, source)
    return values


def _validate(
    groups: Sequence[type[ArgumentGroup]], flags: Mapping[str, Flag], values: Mapping[str, Resolved]
) -> dict[type[ArgumentGroup], ArgumentGroup]:
    built: dict[type[ArgumentGroup], ArgumentGroup] = {}
    for group in groups:
        try:
            built[group] = group(**{name: values[name].value for name in group.model_fields})
        except ValidationError as error:
            raise UsageError(
                "\n".join(_explain(item, flags, values) for item in error.errors())
            ) from error
    return built


def _explain(error: Any, flags: Mapping[str, Flag], values: Mapping[str, Resolved]) -> str:
    name = str(error["loc"][0])
    item, flag = values[name], flags[name]
    where = "" if item.source == "cli" else f" (from {item.source})"
    context = error.get("ctx") or {}
    bounds = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    limits = [f"{words} {context[key]}" for key, words in bounds.items() if key in context]
    wanted = f"must be {' and '.join(limits)}" if limits else f"expected {flag.allowed()}"
    return f"--{name} {item.value}{where}: {wanted}"


def _warn_of_deprecated(
    flags: Mapping[str, Flag], values: Mapping[str, Resolved], warn: Warn
) -> None:
    for name, item in sorted(values.items()):
        # What a checkpoint saved is nobody's choice of today.
        by_a_person = item.source in ("config", "env", "cli")
        if by_a_person and (instead := flags[name].info.deprecated) is not None:
            warn(f"--{name} is deprecated: {instead}")


def secret_names(groups: Sequence[type[ArgumentGroup]]) -> frozenset[str]:
    """Return the flags whose values are never shown."""
    return frozenset(
        name
        for group in groups
        for name, field in group.model_fields.items()
        if flag_info(field).secret
    )
