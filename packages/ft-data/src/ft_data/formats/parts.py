"""Contents that are lists of parts, as OpenAI's and Anthropic's chat formats write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ft_core.examples import Message, Part, Source, ToolCall
from ft_data.formats.calls import read_calls
from ft_data.formats.shape import fault, kind_of

_MEDIA: Final[Mapping[str, tuple[str, str]]] = {
    "image": ("image", "image"),
    "image_url": ("image", "image_url"),
    "input_image": ("image", "image_url"),
    "video": ("video", "video"),
    "video_url": ("video", "video_url"),
    "audio": ("audio", "audio"),
    "audio_url": ("audio", "audio_url"),
    "input_audio": ("audio", "input_audio"),
}
"""For each type of part with a file, what it is and the key of the file."""

_TEXTS: Final = ("text", "input_text", "output_text")
_THOUGHTS: Final = ("thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class Content:
    """What a content holds.

    Attributes:
        content: text, or parts where there is more than text.
        calls: calls of functions among the parts.
        thought: reasoning among the parts.
        results: results of calls among the parts, as turns of their own.
    """

    content: str | tuple[Part, ...]
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""
    results: tuple[Message, ...] = ()


def read_content(value: object, where: str, source: Source) -> Content:
    """Read a content: a text or a list of parts; a part with an image, video or audio keeps its path or address.

    Raises:
        DataError: it is neither, or a part lacks what its type promises.
    """
    if isinstance(value, str):
        return Content(value)
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise fault(source, f"must be a text, but is {kind_of(value)}", where, "wrong_type")
    parts: list[Part] = []
    calls: tuple[ToolCall, ...] = ()
    thoughts: list[str] = []
    results: list[Message] = []
    for part in value:
        found = {"type": "text", "text": part} if isinstance(part, str) else part
        if not isinstance(found, Mapping) or not isinstance(found.get("type"), str):
            raise fault(source, "holds a part without a 'type'", where, "wrong_type")
        kind = found["type"]
        if kind == "tool_use":
            calls += read_calls(found, where, source)
        elif kind == "tool_result":
            results.append(_result(found, where, source))
        elif kind in _THOUGHTS:
            thoughts.append(_text(found, kind, where, source))
        elif kind != "redacted_thinking":  # which only its maker can read
            parts.append(_part(found, where, source))
    if all(part["type"] == "text" for part in parts):
        return Content(
            "".join(part["text"] for part in parts), calls, "\n".join(thoughts), tuple(results)
        )
    return Content(tuple(parts), calls, "\n".join(thoughts), tuple(results))


def _part(part: Mapping[str, Any], where: str, source: Source) -> Part:
    kind = part["type"]
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part, "text", where, source)}
    if kind not in _MEDIA:
        # Tables fill the keys of other parts with null.
        return {key: item for key, item in part.items() if item is not None}
    what, key = _MEDIA[kind]
    path = _file(part, key, what)
    return {"type": what} if path is None else {"type": what, what: path}


def _text(part: Mapping[str, Any], key: str, where: str, source: Source) -> str:
    value = part.get(key, part.get("text"))
    if isinstance(value, str):
        return value
    raise fault(source, f"holds a {part['type']} part without {key!r}", where, "wrong_type")


def _file(part: Mapping[str, Any], key: str, what: str) -> str | None:
    """Return the path, address or data URI of a part's file; ``None`` where the row has it in a column."""
    given = next((part[k] for k in (key, "source", "url", "path") if part.get(k) is not None), None)
    if isinstance(given, Mapping):
        data = given.get("data")
        if isinstance(data, str):
            kind = given.get("media_type") or f"{what}/{given.get('format') or '*'}"
            return f"data:{kind};base64,{data}"
        given = given.get("url") or given.get("path")
    return given if isinstance(given, str) and given else None


def _result(part: Mapping[str, Any], where: str, source: Source) -> Message:
    value = part.get("content")
    if isinstance(value, (list, tuple)):
        content = read_content(value, where, source).content
    elif value is None or isinstance(value, str):
        content = value or ""
    else:
        content = json.dumps(value, ensure_ascii=False, default=str)
    identity = part.get("tool_use_id")
    return Message("tool", content, tool_call_id=identity if isinstance(identity, str) else None)


def without_files(
    messages: Sequence[Message],
) -> tuple[list[Message], dict[str, list[str]]]:
    """Return turns whose parts only mark where a file stands, and the files by column in their order."""
    files: dict[str, list[str]] = {}
    made = []
    for message in messages:
        if isinstance(message.content, str):
            made.append(message)
            continue
        for kind, path in _files(message.content):
            files.setdefault(f"{kind}s", []).append(path)
        marks = tuple(_mark(part) for part in message.content)
        made.append(message if marks == message.content else replace(message, content=marks))
    return made, files


def _files(parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    for part in parts:
        kind = part["type"]
        if kind in ("image", "video", "audio") and isinstance(part.get(kind), str):
            yield kind, part[kind]


def _mark(part: Part) -> Part:
    return {"type": part["type"]} if any(True for _ in _files([part])) else part
