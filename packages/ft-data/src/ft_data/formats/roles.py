"""Who speaks: the names that chat formats and public data sets have for the four roles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ft_core.examples import Role

_NAMES: Final[Mapping[Role, tuple[str, ...]]] = {
    "system": ("system", "developer", "sys", "系统"),
    "user": ("user", "human", "prompter", "usr", "用户", "人类", "问"),
    "assistant": (
        *("assistant", "gpt", "bot", "model", "chatgpt", "chatbot", "ai", "bing", "bard", "claude"),
        *("llm", "助手", "助理", "机器人", "答"),
    ),
    "tool": (
        *("tool", "function", "observation", "tool_response", "function_response", "ipython"),
        *("tool_result", "tool_results", "function_result", "environment"),
    ),
}
ROLE_OF: Final[Mapping[str, Role]] = {
    name: role for role, names in _NAMES.items() for name in names
}
"""For each usual name, in lower case, its role."""

CALL_NAMES: Final = frozenset({"function_call", "tool_call"})
"""Names of turns that are calls of the assistant."""

ROLE_KEYS: Final = ("role", "from", "speaker", "sender")
"""Keys of a turn that may name who speaks."""

CONTENT_KEYS: Final = ("content", "value", "text", "message", "utterance")
"""Keys of a turn that may hold what is said."""


def key_in(turn: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """Return the first of some keys that a turn has."""
    return next((key for key in keys if key in turn), None)


def known_name(name: str) -> bool:
    """Whether a speaker's name is a usual one."""
    lowered = name.strip().lower()
    return lowered in ROLE_OF or lowered in CALL_NAMES


def infer_speakers(talks: Iterable[Sequence[Any]]) -> dict[str, Role]:
    """Tell who is who in conversations whose two speakers have names of their own.

    Of two unknown names that take turns, the one that begins every conversation asks and the other answers; beside
    a usual name, an unknown one is the other side. Anything less certain is left alone.

    Args:
        talks: lists of turns as they were read.

    Returns:
        For each unknown name its role; empty if that can't be told for all conversations alike.
    """
    orders = [
        order
        for talk in talks
        if (order := [name for turn in talk if (name := _speaker(turn)) is not None])
    ]
    unknown = list(
        dict.fromkeys(name for order in orders for name in order if not known_name(name))
    )
    known = {ROLE_OF.get(name.strip().lower()) for order in orders for name in order}
    if len(unknown) == 1:
        sides: list[Role] = [side for side in ("user", "assistant") if side not in known]
        return {unknown[0]: sides[0]} if len(sides) == 1 else {}
    if len(unknown) != 2 or known & {"user", "assistant"}:
        return {}
    spoken = [[name for name in order if name in unknown] for order in orders]
    first = spoken[0][0] if spoken[0] else None
    second = next(name for name in unknown if name != first)
    in_turn = all(
        name == (first, second)[place % 2] for order in spoken for place, name in enumerate(order)
    )
    return {first: "user", second: "assistant"} if first is not None and in_turn else {}


def _speaker(turn: object) -> str | None:
    if not isinstance(turn, Mapping):
        return None
    key = key_in(turn, ROLE_KEYS)
    name = None if key is None else turn[key]
    return name if isinstance(name, str) else None


def with_roles(talk: Sequence[Any], speakers: Mapping[str, Role]) -> list[Any]:
    """Return turns with the roles of their speakers in the place of names of their own."""
    return [_with_role(turn, speakers) for turn in talk]


def _with_role(turn: Any, speakers: Mapping[str, Role]) -> Any:
    name = _speaker(turn)
    key = key_in(turn, ROLE_KEYS) if isinstance(turn, Mapping) else None
    if name is None or key is None or name not in speakers:
        return turn
    return {**turn, key: speakers[name]}
