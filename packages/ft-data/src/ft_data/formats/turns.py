"""Reading lists of turns, whatever their keys and role names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ft_core.examples import Message, Role, Source, ToolCall
from ft_data.formats.calls import calls_of, read_calls
from ft_data.formats.parts import Content, read_content
from ft_data.formats.roles import CALL_NAMES, CONTENT_KEYS, ROLE_KEYS, ROLE_OF, key_in
from ft_data.formats.shape import fault, kind_of, parse_nested

_PAIRS: Final[tuple[tuple[str, str], ...]] = (
    *(("human", "assistant"), ("user", "assistant"), ("question", "answer"), ("q", "a")),
    *(("human", "gpt"), ("user", "bot"), ("query", "response"), ("instruction", "output")),
    *(("input", "output"), ("prompt", "response"), ("prompt", "completion")),
)
"""Keys of question and answer of a round."""
_WEIGHTS: Final = ("weight", "loss", "loss_weight", "train")


def read_turns(value: object, field: str, source: Source) -> list[Message]:
    """Read a list of ``{"role", "content"}`` or ``{"from", "value"}`` turns, or one such turn.

    Turns that are calls of functions become the assistant turn's ``tool_calls``.

    Raises:
        DataError: with the turn's position as field.
    """
    value = parse_nested(value) if isinstance(value, str) else value
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, (list, tuple)):
        raise fault(
            source, f"must be a list of turns, but is {kind_of(value)}", field, "wrong_type"
        )
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        where = f"{field}[{index}]"
        if not isinstance(turn, Mapping):
            raise fault(source, f"must be an object, but is {kind_of(turn)}", where, "wrong_type")
        for message in _read_turn(turn, where, source):
            _append(messages, message)
    return messages


def read_talk(value: object, field: str, source: Source) -> list[Message]:
    """Read a conversation in any of its forms.

    They are turns, as for ``read_turns``; rounds of ``{"human", "assistant"}`` or other usual pairs of keys, where
    the first may have a ``system``; pairs ``[question, answer]``; or texts that take turns, the user's first.

    Raises:
        DataError: with the position as field.
    """
    value = parse_nested(value) if isinstance(value, str) else value
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)):
        raise fault(
            source, f"must be a list of turns, but is {kind_of(value)}", field, "wrong_type"
        )
    first = items[0] if items else None
    if isinstance(first, Mapping) and key_in(first, ROLE_KEYS) is None and _pair_in(first):
        return _read_rounds(items, field, source)
    if isinstance(first, str) and len(items) > 1:
        return _read_texts(items, field, source)
    if isinstance(first, (list, tuple)):
        return read_pairs(items, field, source)
    return read_turns(items, field, source)


def looks_like_talk(value: object) -> bool:
    """Whether a value can be a conversation: a list, also as text, of turns, rounds, pairs or at least two texts."""
    value = parse_nested(value) if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)) or not value:
        return False
    first = value[0]
    if isinstance(first, Mapping):
        spoken = key_in(first, ROLE_KEYS) and key_in(first, CONTENT_KEYS)
        return spoken is not None or _pair_in(first) is not None
    if isinstance(first, (list, tuple)):
        return all(isinstance(item, (list, tuple)) and len(item) == 2 for item in value)
    return len(value) > 1 and all(isinstance(item, str) for item in value)


def read_pairs(items: Sequence[Any], field: str, source: Source) -> list[Message]:
    """Read rounds that are ``[question, answer]`` pairs.

    Raises:
        DataError: with the pair's position as field.
    """
    messages: list[Message] = []
    for index, pair in enumerate(items):
        where = f"{field}[{index}]"
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise fault(source, "must be a pair of question and answer", where, "wrong_type")
        if not all(isinstance(item, str) for item in pair):
            raise fault(source, "must be a pair of texts", where, "wrong_type")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return messages


def _pair_in(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of question and answer; a round without its answer has the key of the question."""
    whole = next((pair for pair in _PAIRS if pair[0] in item and pair[1] in item), None)
    return whole or next((pair for pair in _PAIRS if pair[0] in item), None)


def _read_rounds(items: Sequence[Any], field: str, source: Source) -> list[Message]:
    messages: list[Message] = []
    for index, item in enumerate(items):
        where = f"{field}[{index}]"
        keys = _pair_in(item) if isinstance(item, Mapping) else None
        if keys is None or item.get(keys[0]) is None:
            raise fault(source, "must be a round with 'human' and 'assistant'", where, "wrong_type")
        if index == 0 and (system := _text(item, "system", where, source)):
            messages.append(Message("system", system))
        question, answer = (_text(item, key, where, source) for key in keys)
        if answer is None:
            raise fault(source, f"has no {keys[1]!r}", where, "missing_answer")
        messages += [Message("user", question or ""), Message("assistant", answer)]
    return messages


def _read_texts(items: Sequence[Any], field: str, source: Source) -> list[Message]:
    roles: tuple[Role, Role] = ("user", "assistant")
    for index, item in enumerate(items):
        if not isinstance(item, str):
            where = f"{field}[{index}]"
            raise fault(source, f"must be a text, but is {kind_of(item)}", where, "wrong_type")
    return [Message(roles[index % 2], item) for index, item in enumerate(items)]


def _append(messages: list[Message], message: Message) -> None:
    """Add a turn; calls that follow an assistant turn belong to it."""
    last = messages[-1] if messages else None
    if (
        last is not None
        and last.role == message.role == "assistant"
        and message.tool_calls
        and not message.text
        and last.weight == message.weight
    ):
        messages[-1] = replace(
            last, tool_calls=last.tool_calls + message.tool_calls, tool_call_id=None
        )
    else:
        messages.append(message)


def _read_turn(turn: Mapping[str, Any], where: str, source: Source) -> list[Message]:
    """Read a turn; one whose content holds results of calls is several."""
    role_key = key_in(turn, ROLE_KEYS) or "from"
    usual = "content" if role_key == "role" else "value"
    content_key = key_in(turn, CONTENT_KEYS) or usual
    name = turn.get(role_key)
    if not isinstance(name, str):
        raise fault(
            source, "has no 'role' (or 'from') that names the speaker", where, "missing_role"
        )
    at = f"{where}.{content_key}"
    calls = calls_of(turn, where, source)
    given = turn.get(content_key)
    role = _role(name, where, source)
    if name.strip().lower() in CALL_NAMES:
        calls += read_calls(given, at, source)
        given = ""
    content = _content(given, role, calls, at, source)
    thought = _reasoning(turn, where, source) or content.thought
    said = _with_thought(thought, content.content)
    calls += content.calls
    if content.results and not said and not calls:
        return list(content.results)
    message = Message(
        role=role,
        content=said,
        tool_calls=calls,
        weight=_weight(turn, where, source),
        tool_call_id=_text(turn, "tool_call_id", where, source),
        name=_text(turn, "name", where, source),
    )
    return [*content.results, message]


def _role(name: str, where: str, source: Source) -> Role:
    lowered = name.strip().lower()
    if lowered in CALL_NAMES:
        return "assistant"
    if lowered in ROLE_OF:
        return ROLE_OF[lowered]
    known = ", ".join([*ROLE_OF, *sorted(CALL_NAMES)])
    raise fault(
        source,
        f"role {name!r} is unknown; use one of {known}, or say what it is with user_role or assistant_role of "
        "'conversations' in --custom_dataset_info",
        where,
        "unknown_role",
    )


def _content(
    value: object, role: Role, calls: tuple[ToolCall, ...], where: str, source: Source
) -> Content:
    if value is None and calls:
        return Content("")
    if value is None:
        rule = "missing_answer" if role == "assistant" else "missing_content"
        raise fault(source, "has no content", where, rule)
    if role == "tool" and not isinstance(value, str) and not _is_parts(value):
        return Content(json.dumps(value, ensure_ascii=False, default=str))
    return read_content(value, where, source)


def _is_parts(value: object) -> bool:
    items = [value] if isinstance(value, Mapping) else value
    return isinstance(items, (list, tuple)) and any(
        isinstance(item, Mapping) and isinstance(item.get("type"), str) for item in items
    )


def _reasoning(turn: Mapping[str, Any], where: str, source: Source) -> str | None:
    """Return an answer's reasoning, which is a field of its own in some chat formats."""
    keys = ("reasoning_content", "thinking", "reasoning")
    return next((text for key in keys if (text := _text(turn, key, where, source))), None)


def _with_thought(
    thought: str, content: str | tuple[Mapping[str, Any], ...]
) -> str | tuple[Mapping[str, Any], ...]:
    """Put reasoning into the text, where templates look for it."""
    if not thought:
        return content
    begin = "<think>\n" + thought.strip("\n") + "\n</think>\n\n"
    if isinstance(content, str):
        return begin + content
    return ({"type": "text", "text": begin}, *content)


def _weight(turn: Mapping[str, Any], where: str, source: Source) -> float | None:
    key = next((key for key in _WEIGHTS if turn.get(key) is not None), None)
    if key is None:
        return None
    value = turn[key]
    if isinstance(value, bool):
        return None if value else 0.0
    if isinstance(value, (int, float)) and 0 <= value < float("inf"):
        return float(value)
    raise fault(source, "must be a number of at least 0", f"{where}.{key}", "wrong_type")


def _text(item: Mapping[str, Any], key: str, where: str, source: Source) -> str | None:
    value = item.get(key)
    if value is None or isinstance(value, str):
        return value
    raise fault(source, f"must be a text, but is {kind_of(value)}", f"{where}.{key}", "wrong_type")
