"""Calls of tools compared with those that were expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ft_core.agents import AGENTS, parse
from ft_core.examples import ToolCall
from ft_eval.measures import Measure, mean, scored
from ft_eval.respondents.protocol import Answer
from ft_eval.tasks.task import Item


def calls_of(answer: Answer, agent: str | None) -> list[dict[str, Any]]:
    """Return the calls an answer makes: those a server took out of it, else those that stand in its text.

    Args:
        answer: the answer.
        agent: the format the model was asked to write calls in; ``None`` where the chat format has one of its
            own, so that all known ones are tried.
    """
    if answer.tool_calls:
        return [_plain(ToolCall.from_json(call)) for call in answer.tool_calls]
    for name in AGENTS if agent is None else (agent,):
        if calls := parse(answer.text, AGENTS.get(name)).tool_calls:
            return [_plain(call) for call in calls]
    return []


def _plain(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


def same_names(item: Item, answer: Answer) -> float:
    """Return 1 where the same functions are called, in any order; none where none is expected."""
    given, wanted = _calls(item, answer)
    return float(sorted(call["name"] for call in given) == sorted(call["name"] for call in wanted))


def same_calls(item: Item, answer: Answer) -> float:
    """Return 1 where also all arguments are the same; numbers compare by value, texts without outer space."""
    given, wanted = _calls(item, answer)
    return float(sorted(map(_key, given)) == sorted(map(_key, wanted)))


def _calls(item: Item, answer: Answer) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    return calls_of(answer, item.extra.get("agent")), list(item.extra["calls"])  # type: ignore[return-value]


def _key(call: Mapping[str, Any]) -> str:
    return json.dumps(
        [call["name"], _normal(call["arguments"])], sort_keys=True, ensure_ascii=False
    )


def _normal(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Mapping):
        return {str(name): _normal(item) for name, item in value.items()}
    return [_normal(item) for item in value]


TOOL_NAME = Measure("tool_name", mean, scored(same_names), binary=True)
TOOL_CALL = Measure("tool_call", mean, scored(same_calls), binary=True)
