"""What a Jinja chat template does with tools, calls and results, found by rendering stand-ins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.errors import DataError
from ft_core.examples import Message
from ft_core.templates.jinja_environment import ChatTemplate

QUESTION = {"role": "user", "content": "Szqxquestion"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "szqxtool",
        "description": "probe",
        "parameters": {
            "type": "object",
            "properties": {"szqxkey": {"type": "string", "description": "probe"}},
            "required": ["szqxkey"],
        },
    },
}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "type": "function",
            "function": {"name": "szqxtool", "arguments": {"szqxkey": "szqxvalue"}},
        }
    ],
}
_RESULT = {"role": "tool", "name": "szqxtool", "content": "szqxresult"}
_ANSWER = {"role": "assistant", "content": "Szqxanswer"}


@dataclass(frozen=True, slots=True)
class ToolHabits:
    """What a template has a form of its own for.

    Attributes:
        lists: tools that may be called.
        calls: calls.
        results: turns with results.
    """

    lists: bool
    calls: bool
    results: bool

    @classmethod
    def probe(cls, template: ChatTemplate) -> ToolHabits:
        """Find the habits; from now on the template gets calls as it wants them."""
        lists = "szqxtool" in _try(template, [QUESTION], asking=True)
        calls = False
        for template.arguments_as_text in (False, True):
            for template.short_ids in (False, True):
                if calls := _right(_try(template, [QUESTION, CALL, _RESULT, _ANSWER])):
                    break
            if calls:
                break
        else:
            template.arguments_as_text = template.short_ids = False
        with_result = [QUESTION, CALL if calls else _ANSWER, _RESULT, _ANSWER]
        return cls(lists, calls, "szqxresult" in _try(template, with_result))

    @property
    def all(self) -> bool:
        """Whether it has a form for everything."""
        return self.lists and self.calls and self.results

    def suffice(self, messages: Sequence[Message], *, tools: bool) -> bool:
        """Whether the template renders all that a conversation uses of tools, or may come to use.

        The answer is the same for the beginning of a conversation: it is asked with what it is trained.
        """
        if tools:
            return self.all
        if any(message.tool_calls for message in messages):
            return self.calls and self.results
        return self.results or all(message.role != "tool" for message in messages)


def _try(template: ChatTemplate, messages: list[dict[str, Any]], *, asking: bool = False) -> str:
    """Render with a tool; nothing where the template refuses."""
    try:
        return template.render(messages, [TOOL], add_generation_prompt=asking)
    except DataError:
        return ""


def _right(text: str) -> bool:
    """Whether a call is there with its arguments, neither as Python nor as JSON within JSON."""
    wrong = "{'szqxkey'" in text or '\\"szqxkey' in text
    # The name and the key stand in the list of tools too, the value only in the call.
    return "szqxvalue" in text and not wrong
