"""Forms of commands, made from their argument groups: fields, checks, and the words they become."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ft_core.command import Command
from ft_core.command.argv import split_words
from ft_core.command.flags import Flag, flags_of
from ft_core.command.resolve import resolve
from ft_core.errors import FtError, UsageError
from ft_ui.studio.workplace import Workplace

FORBIDDEN = frozenset(
    {
        *("custom_register_path", "trust_remote_code", "local_repo_path", "run_code"),
        *("reward_funcs", "llama_cpp_dir", "auth", "host", "allowed_hosts", "share"),
        *("ignore_args_error", "config", "custom_dataset_info"),
    }
)
"""Flags that run code, open a server to the network or register files: they are given in a terminal only."""

NAMES_FILES = frozenset({"custom_eval_config", "deepspeed", "fsdp_config"})
"""Flags whose JSON names further files; those must be inside too."""


def only_in_a_terminal(name: str) -> bool:
    """Whether a page may not set a flag; ``…_python`` says which interpreter is started."""
    return name in FORBIDDEN or name.endswith("_python")


Values = Mapping[str, str]
"""What a person entered, by flag; an empty text is the default."""

Kind = Literal["choice", "switch", "text", "long"]

_PROSE = frozenset({"system"})
"""Flags whose text is no path, however it begins."""

_LONG = frozenset({"system", "rope_scaling", "chat_template_kwargs"})


@dataclass(frozen=True, slots=True)
class Field:
    """A flag as a field of a form.

    Attributes:
        flag: the flag.
        default: what it is where nothing is entered, with the command's own defaults.
    """

    flag: Flag
    default: Any

    @property
    def name(self) -> str:
        """The flag's name."""
        return self.flag.name

    @property
    def kind(self) -> Kind:
        """How it is entered."""
        if self.flag.is_list:
            return "text"
        if self.flag.choices:
            return "choice"
        if self.flag.is_switch and len(self.flag.kinds) == 1:
            return "switch"
        return "long" if self.name in _LONG else "text"

    @property
    def choices(self) -> list[str]:
        """The values to choose from."""
        if self.kind == "switch":
            return ["true", "false", *(["none"] if self.flag.nullable else [])]
        return ["none" if choice is None else str(choice) for choice in self.flag.choices]

    @property
    def default_text(self) -> str:
        """The default as it would be entered."""
        return text_of(self.default)

    def words(self, text: str) -> list[str]:
        """Return the words of the value that a person entered.

        Raises:
            UsageError: it isn't one; the message says what is allowed.
        """
        if self.flag.is_list:
            try:
                return shlex.split(text)
            except ValueError as error:
                raise UsageError(f"--{self.name} {text}: {error}") from error
        return [text]


@dataclass(frozen=True, slots=True)
class Form:
    """A command's form.

    Attributes:
        command: the command.
        fields: its flags that a page may set, by name.
    """

    command: Command
    fields: Mapping[str, Field]

    def found(self, text: str) -> list[Field]:
        """Return the fields whose name, group or help have all the words of a text."""
        words = text.lower().replace("--", "").split()
        if not words:
            return []
        scored = []
        for field in self.fields.values():
            flag = field.flag
            names = " ".join((flag.name, *flag.info.aliases)).lower()
            everything = f"{names} {flag.group.title} {flag.help}".lower()
            if all(word in everything or word in names.replace("_", " ") for word in words):
                scored.append((0 if all(word in names for word in words) else 1, field))
        return [field for _, field in sorted(scored, key=lambda item: item[0])]

    def given(self, values: Values) -> dict[str, str]:
        """Return the values that aren't the defaults, in the order of the flags."""
        return {
            name: text
            for name, field in self.fields.items()
            if (text := str(values.get(name, "")).strip()) and text != field.default_text
        }

    def words(self, values: Values) -> list[str]:
        """Return the command and its flags, as a process gets them.

        Raises:
            UsageError: a list isn't written as words.
        """
        words = [self.command.name]
        for name, text in self.given(values).items():
            words += [f"--{name}", *_not_a_flag(name, self.fields[name].words(text))]
        return words

    def problem_of(self, name: str, text: str, workplace: Workplace) -> str:
        """Return what is wrong with one field, in words; empty if nothing is."""
        if not text.strip() or text.strip() == self.fields[name].default_text:
            return ""
        try:
            self._check_field(name, text.strip(), workplace)
        except FtError as error:
            return str(error)
        return ""

    def _check_field(self, name: str, text: str, workplace: Workplace) -> None:
        field = self.fields[name]
        words = field.words(text)
        _refuse_outside(name, words, workplace)
        field.flag.convert(words)
        bounds = _with_only(self.command, name, words)
        if bounds:
            raise UsageError(bounds)

    def problems(self, values: Values, workplace: Workplace) -> list[str]:
        """Return what keeps the command from being started, in words."""
        found = [
            problem
            for name, text in self.given(values).items()
            if (problem := self.problem_of(name, text, workplace))
        ]
        if found:
            return found
        try:
            check_words(self.command, self.words(values)[1:], workplace)
        except FtError as error:
            found += str(error).splitlines()
        return found

    def yaml(self, values: Values) -> str:
        """Return a file for ``--config`` with what was entered."""
        import yaml

        plain = {}
        for name, text in self.given(values).items():
            try:
                plain[name] = self.fields[name].flag.convert(self.fields[name].words(text))
            except UsageError:
                plain[name] = text
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True) if plain else ""

    def from_words(self, words: Sequence[str]) -> dict[str, str]:
        """Return what a form would hold for a command that was typed; flags it doesn't have are left out."""
        read = split_words(words, flags_of(self.command.groups), self.command.positional)
        return {
            name: shlex.join(given)
            if self.fields[name].flag.is_list
            else (given[0] if given else "true")
            for name, given in read.values.items()
            if name in self.fields
        }


def form_of(command: Command) -> Form:
    """Return the form of a command, without the flags that only a terminal may set."""
    fields = {
        name: Field(flag, command.defaults.get(name, flag.default))
        for name, flag in flags_of(command.groups).items()
        if not only_in_a_terminal(name) and not flag.info.secret and flag.info.deprecated is None
    }
    return Form(command, fields)


def command_line(program: str, words: Sequence[str]) -> str:
    """Return the command to copy into a terminal."""
    return f"{program} {shlex.join(words)}"


def check_words(command: Command, words: Sequence[str], workplace: Workplace) -> None:
    """Refuse words that the command would refuse, that run code, or that name files elsewhere.

    Raises:
        UsageError: with everything that is wrong.
    """
    flags = flags_of(command.groups)
    read = split_words(words, flags, command.positional)
    for name, given in read.values.items():
        if only_in_a_terminal(name):
            raise UsageError(f"--{name} can be given in a terminal only")
        _refuse_outside(name, given, workplace)
    resolve(command, words, environ={}, warn=_not_now)


def _refuse_outside(name: str, words: Sequence[str], workplace: Workplace) -> None:
    if name in _PROSE:
        return
    for word in words:
        if not word.lstrip().startswith("{"):
            workplace.refuse_outside(word)
        if name in NAMES_FILES:
            for text in _texts_in(word, workplace):
                workplace.refuse_outside(text)


def _texts_in(word: str, workplace: Workplace) -> Iterator[str]:
    """Yield every text in a value that is JSON or the name of a file of JSON."""
    text = word
    if not word.lstrip().startswith("{"):
        file = workplace.inside(word)
        if not file.is_file():
            return
        text = file.read_text(encoding="utf-8", errors="replace")
    try:
        left = [json.loads(text)]
    except json.JSONDecodeError:
        return  # the command says what is wrong with it
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left += item.values()
        elif isinstance(item, list):
            left += item
        elif isinstance(item, str):
            yield item


def _with_only(command: Command, name: str, words: Sequence[str]) -> str:
    """Return why a value is out of its bounds, looked at alone; empty if it isn't."""
    from pydantic import ValidationError

    flag = flags_of(command.groups)[name]
    try:
        flag.group.__pydantic_validator__.validate_assignment(
            flag.group.model_construct(), name, flag.convert(words)
        )
    except ValidationError as error:
        found = [item for item in error.errors() if item["loc"][:1] == (name,)]
        if found:
            return f"--{name} {' '.join(words)}: {_sentence(found[0])}"
    return ""


def _sentence(error: Any) -> str:
    bounds = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    context = error.get("ctx") or {}
    limits = [f"{words} {context[key]}" for key, words in bounds.items() if key in context]
    return f"must be {' and '.join(limits)}" if limits else str(error["msg"])


def _not_a_flag(name: str, words: Sequence[str]) -> list[str]:
    """Refuse values that would be read as flags of their own."""
    for word in words:
        if word.startswith("--"):
            raise UsageError(f"--{name} {word}: a value can't begin with two dashes here")
    return list(words)


def _not_now(text: str) -> None:
    """Warnings show in the log of the command itself."""


def text_of(value: Any) -> str:
    """Return a value as it would be entered."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return shlex.join("none" if item is None else str(item) for item in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
