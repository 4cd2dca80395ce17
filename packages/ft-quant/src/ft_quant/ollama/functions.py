"""How a chat format writes functions, calls of them and their results, as the texts around each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.errors import FtError
from ft_core.examples import Message, ToolCall
from ft_core.templates.template import Template
from ft_quant.ollama.pieces import Pieces

_SYSTEM, _QUESTION, _SAID, _RESULT = (
    "SYSTEMsystem",
    "QUESTIONquestion",
    "SAIDsaid",
    "RESULT{}result",
)
_NAMES = ("FIRSTfirst", "SECONDsecond")
_GIVEN: Mapping[str, Any] = {"KEYkey": "VALUEvalue"}


@dataclass(frozen=True, slots=True)
class ToolPieces:
    """What stands around functions, calls and results.

    Attributes:
        opening: before the first function, where there is no system message.
        after_system: between a system message and the first function.
        between: between two functions.
        after: between the last function and the first question.
        whole: whether a function is written in OpenAI's form, with its type; else as what is inside.
        after_said: between what an answer says and its calls.
        before_call: before the name in the first call.
        in_call: between the name and the arguments of a call.
        between_calls: between the arguments of a call and the name in the next one.
        after_call: behind the arguments of the last one.
        before_result: before the first result after an answer.
        between_results: between two of them.
        after_result: between the last one and the answer to it.
    """

    opening: str
    after_system: str
    between: str
    after: str
    whole: bool
    after_said: str
    before_call: str
    in_call: str
    between_calls: str
    after_call: str
    before_result: str
    between_results: str
    after_result: str


def find_tool_pieces(template: Template, pieces: Pieces) -> ToolPieces | None:
    """Find how a format writes functions; ``None`` if it doesn't, or not in a way that Go's templates can.

    Args:
        template: the chat format.
        pieces: those of its conversations.
    """
    if pieces.before_system is None or pieces.after_answer is None:
        return None
    try:
        found = _find(template, pieces)
        return found if found is not None and _works(template, pieces, found) else None
    except (FtError, ValueError):  # it has no form for them, or one of other parts
        return None


def _find(template: Template, pieces: Pieces) -> ToolPieces | None:
    question = Message("user", _QUESTION)
    plain = _prompt(template, [question])
    whole = json.dumps(tool(0)) in plain
    first, second = (_written(number, whole=whole) for number in (0, 1))
    opening, between, rest = _cut(plain, first, second)
    after, _ = _cut(rest, _QUESTION)
    _, after_system, _ = _cut(
        _prompt(template, [Message("system", _SYSTEM), question]), _SYSTEM, first
    )
    calls = tuple(ToolCall(name, _GIVEN) for name in _NAMES)
    results = [Message("tool", _RESULT.format(n), name=name) for n, name in enumerate(_NAMES)]
    given = json.dumps(_GIVEN)
    _, asked = _cut(
        _prompt(template, [question, Message("assistant", "", calls), *results]), _QUESTION
    )
    before, in_call, between_calls, _, to_result, between_results, after_result = _cut(
        asked, _NAMES[0], given, _NAMES[1], given, *(str(item.content) for item in results)
    )
    _, said = _cut(
        _prompt(template, [question, Message("assistant", _SAID, calls), *results]), _SAID
    )
    to_call, _ = _cut(said, _NAMES[0])
    before_call = before.removeprefix(pieces.before_answer)
    # Where nobody gives results, the end of the turn follows the calls.
    left = _prompt(template, [question, Message("assistant", "", calls), Message("user", _SAID)])
    *_, ending, _ = _cut(left, _QUESTION, _NAMES[1], given, _SAID)
    after_call = ending.removesuffix(f"{pieces.after_answer}{pieces.before_question}")
    _, before_result = _cut(to_result, f"{after_call}{pieces.after_answer}")
    names = (opening, after_system, between, after)
    if any(name in text for name in _NAMES for text in names) or not to_call.endswith(before_call):
        return None
    return ToolPieces(
        opening=opening,
        after_system=after_system,
        between=between,
        after=after.removesuffix(pieces.before_question),
        whole=whole,
        after_said=to_call.removesuffix(before_call),
        before_call=before_call,
        in_call=in_call,
        between_calls=between_calls,
        after_call=after_call,
        before_result=before_result,
        between_results=between_results,
        after_result=after_result,
    )


def _works(template: Template, pieces: Pieces, found: ToolPieces) -> bool:
    """Whether the parts make the prompts that the format makes, of one call and of several."""
    question = Message("user", "What is it?")
    for system in ((), (Message("system", "Be brief."),)):
        for said in ("", "Let me see."):
            for names in (_NAMES[:1], _NAMES):
                calls = tuple(ToolCall(name, {"at": [1]}) for name in names)
                results = (Message("tool", f"it is {name}", name=name) for name in names)
                talk = [*system, question, Message("assistant", said, calls), *results]
                talk += [Message("assistant", "Done."), question]
                if render(pieces, found, talk) != _prompt(template, talk):
                    return False
    return True


def render(pieces: Pieces, tools: ToolPieces, messages: Sequence[Message]) -> str:
    """Render a conversation with the two functions of the comparison, as the Modelfile's template does."""
    system = "".join(str(item.content) for item in messages if item.role == "system")
    start = (str(pieces.before_system), system, tools.after_system) if system else (tools.opening,)
    listed = tools.between.join(_written(number, whole=tools.whole) for number in (0, 1))
    parts = [*start, listed, tools.after]
    for index, item in enumerate(messages):
        following = messages[index + 1].role if index + 1 < len(messages) else ""
        if item.role == "user":
            parts += [pieces.before_question, str(item.content), pieces.before_answer]
        elif item.role == "assistant":
            parts += [str(item.content), _calls(tools, item), str(pieces.after_answer)]
        elif item.role == "tool":
            again = messages[index - 1].role == "tool"
            parts += [tools.between_results if again else tools.before_result, str(item.content)]
            parts += ["" if following == "tool" else tools.after_result]
    return "".join(parts)


def _calls(tools: ToolPieces, message: Message) -> str:
    if not message.tool_calls:
        return ""
    written = tools.between_calls.join(
        f"{call.name}{tools.in_call}{json.dumps(call.arguments)}" for call in message.tool_calls
    )
    said = tools.after_said if message.content else ""
    return f"{said}{tools.before_call}{written}{tools.after_call}"


def tool(number: int) -> dict[str, Any]:
    """Return a function to compare with."""
    inside = {"name": _NAMES[number], "description": "d", "parameters": {"type": "object"}}
    return {"type": "function", "function": inside}


def _written(number: int, *, whole: bool) -> str:
    return json.dumps(tool(number) if whole else tool(number)["function"])


def _prompt(template: Template, messages: Sequence[Message]) -> str:
    segments = template.render_prompt(messages, [tool(0), tool(1)])
    return "".join(segment.text for segment in segments)


def _cut(text: str, *marks: str) -> list[str]:
    """Return what stands before, between and behind marks, which follow each other.

    Raises:
        ValueError: one of them isn't there.
    """
    found = []
    for mark in marks:
        before, there, text = text.partition(mark) if mark else ("", "", text)
        if not there:
            raise ValueError(f"{mark!r} isn't in the rendered text")
        found.append(before)
    return [*found, text]
