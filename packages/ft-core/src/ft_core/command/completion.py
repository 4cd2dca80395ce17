"""Completion in bash, zsh and fish: the shell asks the program itself for candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ft_core.command.flags import flags_of, names_of
from ft_core.command.resolve import all_groups
from ft_core.command.run import Table, find
from ft_core.errors import UsageError
from ft_core.registry import load_object

_BASH = """\
_{name}_complete() {{
  local IFS=$'\\n'
  COMPREPLY=($(compgen -o default -W "$({prog} __complete "${{COMP_WORDS[@]:1:COMP_CWORD}}")" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{name}_complete {prog}
"""
_SCRIPTS = {
    "bash": _BASH,
    "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + _BASH,
    "fish": 'complete -c {prog} -a "({prog} __complete (commandline -opc)[2..] (commandline -ct))"\n',
}


def completion_script(prog: str, shell: str) -> str:
    """Return the script to source; ``eval "$(ft completion bash)"`` turns completion on.

    Raises:
        UsageError: the shell isn't bash, zsh or fish.
    """
    if shell not in _SCRIPTS:
        raise UsageError(f"completion {shell}: allowed are {', '.join(_SCRIPTS)}")
    return _SCRIPTS[shell].format(prog=prog, name=prog.replace("-", "_"))


def candidates(prog: str, table: Table, words: Sequence[str]) -> list[str]:
    """Return what may stand in place of the last word: commands, flags, or a flag's fixed values."""
    if len(words) <= 1:
        return [name for name in table if name.startswith(words[0] if words else "")]
    command = load_object(find(prog, table, words[0]).target)
    if isinstance(command, Mapping):
        return candidates(f"{prog} {words[0]}", command, words[1:])
    flags = flags_of(all_groups(command))
    current, previous = words[-1], words[-2]
    if not current.startswith("--") and previous.startswith("--"):
        name = names_of(flags).get(previous[2:].replace("-", "_"))
        if name is not None:
            flag = flags[name]
            choices = flag.choices or (flag.item.choices if flag.item else ())
            values = ["none" if choice is None else str(choice) for choice in choices]
            return [*values, *(["true", "false"] if flag.is_switch else [])]
    return [f"--{name}" for name in flags if f"--{name}".startswith(current)]
