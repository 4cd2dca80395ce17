"""The agent formats: each renders tools, calls and results, and says how its calls look in an answer.

ReAct is Yao et al. 2022 (https://arxiv.org/abs/2210.03629), ToolBench Qin et al. 2023
(https://arxiv.org/abs/2307.16789); the others are what the model families of their names were trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

from ft_core.agents.functions import Tool, dump
from ft_core.examples import ToolCall
from ft_core.registry import Registry


@dataclass(frozen=True, slots=True)
class AgentFormat:
    """How a family of models uses tools.

    Attributes:
        name: as ``--tools_prompt`` takes it.
        tools_prompt: tools → what is added to the system message.
        calls: calls → the text the assistant writes.
        result: a tool's result → the text of its turn, or of the observation.
        grammar: how calls are found in an answer; see ``ft_core.agents.parsing``.
        observation: results continue the assistant's own text (ReAct) instead of being a turn.
        stop: texts at which generation pauses for the result.
        marks: texts of the format that are tokens of their own in the models it is for; where they stand in
            a row's texts they are text.
        between: what stands between the results of several calls.
    """

    name: str
    tools_prompt: Callable[[Sequence[Tool]], str]
    calls: Callable[[Sequence[ToolCall]], str]
    result: Callable[[str], str]
    grammar: str
    observation: bool = False
    stop: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    between: str = "\n"


@cache
def _prompts() -> Mapping[str, str]:
    prompts: Mapping[str, str] = json.loads(
        files("ft_core").joinpath("data/tools_prompts.json").read_text(encoding="utf-8")
    )
    return prompts


def _filled(name: str, tools: Sequence[Tool]) -> str:
    listed = "\n\n".join(dump(tool.function) for tool in tools)
    prompt = _prompts()[name].replace("{tool_list}", listed)
    return prompt.replace("{tool_names}", ",".join(tool.name for tool in tools))


def arguments_of(call: ToolCall) -> str:
    """Return a call's arguments as JSON text; text that is no JSON stays as it is."""
    return call.arguments if isinstance(call.arguments, str) else dump(dict(call.arguments))


def _call_object(call: ToolCall, key: str = "arguments") -> str:
    """Return ``{"name": …, "arguments": …}`` with the arguments as they are, also where they are no JSON."""
    return f'{{"name": {dump(call.name)}, "{key}": {arguments_of(call)}}}'


def _react_calls(calls: Sequence[ToolCall]) -> str:
    return "\n".join(f"Action: {call.name}\nAction Input: {arguments_of(call)}" for call in calls)


def _hermes_tools(tools: Sequence[Tool]) -> str:
    listed = "\n".join(dump(tool.nested) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def _hermes_calls(calls: Sequence[ToolCall]) -> str:
    return "\n".join(f"<tool_call>\n{_call_object(call)}\n</tool_call>" for call in calls)


def _llama3_tools(tools: Sequence[Tool]) -> str:
    listed = "\n\n".join(json.dumps(tool.nested, ensure_ascii=False, indent=4) for tool in tools)
    return (
        "Given the following functions, please respond with a JSON for a function call with its proper "
        "arguments that best answers the given prompt.\n\n"
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its '
        f"value}}. Do not use variables.\n\n{listed}"
    )


def _llama3_calls(calls: Sequence[ToolCall]) -> str:
    return "; ".join(_call_object(call, "parameters") for call in calls)


def _mistral_tools(tools: Sequence[Tool]) -> str:
    return f"[AVAILABLE_TOOLS] {dump([tool.nested for tool in tools])}[/AVAILABLE_TOOLS]"


def _mistral_calls(calls: Sequence[ToolCall]) -> str:
    return f"[TOOL_CALLS] [{', '.join(_call_object(call) for call in calls)}]"


def _glm4_tools(tools: Sequence[Tool]) -> str:
    listed = "\n\n".join(
        f"## {tool.name}\n\n{json.dumps(tool.function, ensure_ascii=False, indent=4)}\n"
        "在调用上述函数时，请使用 Json 格式表示调用的参数。"
        for tool in tools
    )
    return _prompts()["glm4"].replace("{tool_list}", listed)


def _glm4_calls(calls: Sequence[ToolCall]) -> str:
    return "<|assistant|>".join(f"{call.name}\n{arguments_of(call)}" for call in calls)


def _deepseek_tools(tools: Sequence[Tool]) -> str:
    listed = "\n\n".join(
        f"### {tool.name}\nDescription: {tool.function.get('description', '')}\n\n"
        f"Parameters: {dump(tool.function.get('parameters', {}))}"
        for tool in tools
    )
    return (
        f"## Tools\nYou have access to the following tools:\n\n{listed}\n\n"
        "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments"
        "<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>\n\n"
        "Where:\n\n- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema"
    )


def _deepseek_calls(calls: Sequence[ToolCall]) -> str:
    inner = "".join(
        f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{arguments_of(call)}<｜tool▁call▁end｜>"
        for call in calls
    )
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def _same(text: str) -> str:
    return text


def _observation(text: str) -> str:
    return f"Observation: {text}"


AGENTS: Registry[AgentFormat] = Registry("agent format", entry_point_group="ft.agents")
"""All agent formats by name."""


def agent_of(tools_prompt: str | None) -> AgentFormat:
    """Return the format in which a template's answers call tools.

    Args:
        tools_prompt: ``Template.tools_prompt``; a template with a form of its own names none, and most of
            today's write calls as Hermes does.
    """
    return AGENTS.get(tools_prompt or "hermes")


# What stands between results, and then the marks.
_MARKS: Mapping[str, tuple[str, ...]] = {
    "mistral": (
        "",
        *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]"),
        *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    ),
    "glm4": ("<|observation|>\n", "<|observation|>", "<|assistant|>"),
    "deepseek": (
        "",
        *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
        *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
        *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
    ),
}


def _register() -> None:
    for name in ("react_en", "react_zh", "toolbench"):
        AGENTS.register(
            name,
            AgentFormat(
                name,
                partial(_filled, name),
                _react_calls,
                _observation,
                "react",
                observation=True,
                stop=("Observation:",),
            ),
        )
    wrapped: dict[str, Any] = {
        "hermes": (_hermes_tools, _hermes_calls, "<tool_response>\n{}\n</tool_response>"),
        "llama3": (_llama3_tools, _llama3_calls, "{}"),
        "mistral": (
            _mistral_tools,
            _mistral_calls,
            '[TOOL_RESULTS] {{"content": {}}}[/TOOL_RESULTS]',
        ),
        "glm4": (_glm4_tools, _glm4_calls, "{}"),
        "deepseek": (
            _deepseek_tools,
            _deepseek_calls,
            "<｜tool▁output▁begin｜>{}<｜tool▁output▁end｜>",
        ),
    }
    for name, (tools, calls, frame) in wrapped.items():
        result = partial(_framed, frame, quoted=name == "mistral")
        between, *marks = _MARKS.get(name, ("\n",))
        AGENTS.register(
            name,
            AgentFormat(name, tools, calls, result, name, marks=tuple(marks), between=between),
        )


def _framed(frame: str, text: str, *, quoted: bool) -> str:
    return frame.format(dump(text) if quoted else text)


_register()
