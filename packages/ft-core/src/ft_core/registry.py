"""Named things that packages, plug-ins and users add: models, templates, datasets, tuners, commands."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from ft_core.errors import UsageError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to values that may be loaded late and may come from other packages.

    Args:
        kind: what the entries are, for messages: ``"template"``.
        entry_point_group: group of entry points whose entries are members too; they are looked up on
            the first miss or listing, never at import.
        load: called once, before the first look-up, to fill the registry from a data file.
    """

    def __init__(
        self,
        kind: str,
        *,
        entry_point_group: str | None = None,
        load: Callable[[Registry[T]], None] | None = None,
    ) -> None:
        self.kind = kind
        self._group = entry_point_group
        self._load = load
        self._entries: dict[str, T | str] = {}
        self._lazy: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._plugins_read = False

    def register(
        self,
        name: str,
        value: T | str,
        *,
        lazy: bool = False,
        aliases: tuple[str, ...] = (),
        exist_ok: bool = False,
    ) -> None:
        """Add an entry.

        Args:
            name: the entry's name.
            value: the entry itself, or with ``lazy`` a ``"module:attribute"`` that is imported on first use.
            lazy: whether ``value`` names the entry instead of being it.
            aliases: further names of the entry.
            exist_ok: replace an entry of the same name instead of refusing.

        Raises:
            UsageError: the name is taken and ``exist_ok`` is false.
        """
        self._fill()
        if not exist_ok and (name in self._entries or name in self._aliases):
            raise UsageError(
                f"{self.kind} {name!r} is registered already; choose another name or pass exist_ok=True"
            )
        self._entries[name] = value
        self._lazy.discard(name)
        if lazy:
            self._lazy.add(name)
        for alias in aliases:
            self._aliases[alias] = name

    def get(self, name: str) -> T:
        """Return the entry called ``name`` or one of its aliases.

        Raises:
            UsageError: there is none; the message lists the closest names. Or a package brings it and it
                can't be imported.
        """
        self._fill()
        key = self._aliases.get(name, name)
        if key not in self._entries:
            self._read_plugins()
            key = self._aliases.get(name, name)
        if key not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}.{suggest(name, self.names())}")
        value = self._entries[key]
        if key in self._lazy:
            try:
                value = cast(T, load_object(cast(str, value)))
            except (ImportError, AttributeError) as error:
                raise UsageError(
                    f"{self.kind} {key!r} can't be imported from {value} ({type(error).__name__}: {error}); repair or "
                    "uninstall the package that registers it"
                ) from error
            self._entries[key] = value
            self._lazy.discard(key)
        return cast(T, value)

    def names(self) -> list[str]:
        """Return all names, without aliases, in order of registration."""
        self._fill()
        self._read_plugins()
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        self._fill()
        if name in self._entries or name in self._aliases:
            return True
        self._read_plugins()
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def _fill(self) -> None:
        if self._load is not None:
            load, self._load = self._load, None
            load(self)

    def _read_plugins(self) -> None:
        if self._plugins_read or self._group is None:
            return
        self._plugins_read = True
        from importlib.metadata import entry_points  # 40 ms that most look-ups don't need

        for point in entry_points(group=self._group):
            if point.name not in self._entries:
                self._entries[point.name] = point.value
                self._lazy.add(point.name)


def load_object(spec: str) -> Any:
    """Import ``"package.module:attribute"`` and return the attribute."""
    module, _, attribute = spec.partition(":")
    value: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        value = getattr(value, part)
    return value


def run_register_file(path: str | Path) -> None:
    """Execute a user's Python file (``--custom_register_path``) that registers things on import.

    The file's directory is put on the import path, so that it can import its neighbours.

    Raises:
        UsageError: the file doesn't exist, isn't Python, or fails; the message carries its error.
    """
    run_python_file(path, f"--custom_register_path {path}")


def run_python_file(path: str | Path, given: str) -> ModuleType:
    """Execute a user's Python file, whose directory is put on the import path.

    Args:
        path: of the file.
        given: the flag with its value, for messages.

    Raises:
        UsageError: the file doesn't exist, isn't Python, or fails; the message carries its error.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(f"{given}: not a Python file; give the path of a .py file")
    name = f"ft_custom_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{given}: Python can't import this file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{given}: {type(error).__name__}: {error}") from error
    return module
