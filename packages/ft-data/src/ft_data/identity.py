"""The model's name and author in rows that teach it who it is: what stands for their placeholders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ft_core.errors import UsageError
from ft_core.examples import Source as Origin
from ft_data.files import RawRow

_PLACEHOLDER: Final = re.compile(r"\{\{(NAME|AUTHOR|name|author)\}\}")
_FLAGS: Final = {"NAME": "model_name", "AUTHOR": "model_author"}
_CHINESE: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")

Language = Literal["zh", "en"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the model shall be.

    Attributes:
        name: its name for Chinese rows and for the others; one value serves both.
        author: who made it, likewise.
    """

    name: tuple[str | None, ...] = ()
    author: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        for flag, values in (("model_name", self.name), ("model_author", self.author)):
            if len(values) > 2:
                raise UsageError(
                    f"--{flag} takes one value, or two for Chinese and for other rows; got {len(values)}: "
                    + ", ".join(map(str, values))
                )
            if any(value is not None and not value.strip() for value in values):
                raise UsageError(f"--{flag}: a value is empty; leave the flag out, or name one")

    @classmethod
    def of(
        cls,
        name: str | Sequence[str | None] | None = None,
        author: str | Sequence[str | None] | None = None,
    ) -> Identity:
        """Take values as flags have them: none, one for all rows, or one for Chinese and one for other rows.

        Raises:
            UsageError: more than two values, or an empty one.
        """
        return cls(_values(name), _values(author))

    def value(self, placeholder: str, language: Language) -> str | None:
        """Return what stands for ``NAME`` or ``AUTHOR``, or either in lower case, in rows of a language."""
        values = self.name if placeholder.upper() == "NAME" else self.author
        if not values:
            return None
        return values[0] if language == "zh" else values[-1]


def _values(given: str | Sequence[str | None] | None) -> tuple[str | None, ...]:
    values = (given,) if given is None or isinstance(given, str) else tuple(given)
    return () if all(value is None for value in values) else values


def filled(rows: Iterable[RawRow], identity: Identity) -> Iterator[RawRow]:
    """Put name and author in the place of ``{{NAME}}`` and ``{{AUTHOR}}``, and of ``{{name}}`` and ``{{author}}``.

    Those in lower case stand in prompts of programs too, so they are left as they are where no value is given.
    Chinese rows take the first of two values: rows whose ``tag`` is ``zh``, or that have none and hold Chinese
    characters. Plain text to continue is left as it is.

    Raises:
        UsageError: a row has a placeholder, and no value stands for it.
    """
    for row, origin in rows:
        yield _filled_row(row, identity, origin), origin


def _filled_row(row: Any, identity: Identity, origin: Origin) -> Any:
    if not isinstance(row, dict) or not _is_conversation(row) or not _has_placeholder(row):
        return row
    language = _language(row)

    def value_of(match: re.Match[str]) -> str:
        value = identity.value(match[1], language)
        if value is None and match[1].islower():
            return match[0]
        if value is None:
            raise UsageError(_missing(match[1], language, origin))
        return value

    return _replaced(row, value_of)


def _is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a row is more than plain text to continue."""
    return "text" not in row and not ("response" in row and "query" not in row)


def _missing(placeholder: str, language: Language, origin: Origin) -> str:
    flag = _FLAGS[placeholder]
    what = "name" if placeholder == "NAME" else "author"
    return (
        f"{origin}: has {{{{{placeholder}}}}} in the place of the model's {what}, and --{flag} names none"
        f"{' for Chinese rows' if language == 'zh' else ''}; give --{flag} with one value, or with two for Chinese "
        f"and for other rows (--{flag} '{{{{{placeholder}}}}}' leaves it as it is)"
    )


def left_open(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return a sentence about placeholders that are still in rows, or ``None``."""
    found = {
        match[0] for row in rows for text in _texts(row) for match in _PLACEHOLDER.finditer(text)
    }
    if not found:
        return None
    flags = " and ".join(sorted({f"--{_FLAGS[mark.strip('{}').upper()]}" for mark in found}))
    return f"rows hold {', '.join(sorted(found))}; {flags} can put something in their place"


def _has_placeholder(row: Mapping[str, Any]) -> bool:
    return any("{{" in text and _PLACEHOLDER.search(text) for text in _texts(row))


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Return all texts in a row, however deep."""
    left: list[Any] = [row]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, (list, tuple)):
            left.extend(value)


def _replaced(value: Any, value_of: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(value_of, value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, value_of) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, value_of) for item in value]
    return value


def _language(row: Mapping[str, Any]) -> Language:
    tag = row.get("tag")
    if tag in ("zh", "en"):
        return "zh" if tag == "zh" else "en"
    return "zh" if any(map(_CHINESE.search, _texts(row))) else "en"
