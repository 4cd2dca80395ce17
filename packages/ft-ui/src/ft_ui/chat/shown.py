"""How a conversation looks on a page: messages for the display, with nothing of a model taken as HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.examples import ToolCall
from ft_ui.chat.messages import Conversation

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_THOUGHT = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ShownWords:
    """The words of a page around a conversation, in its language."""

    thinking: str
    stopped: str
    cut: str
    calls: str
    result: str


ENGLISH = ShownWords("Thinking", "stopped", "cut at the token limit", "Calls", "Result")


def harmless(text: str) -> str:
    """Return markdown in which nothing is HTML and nothing is loaded from elsewhere.

    Outside of code a ``<`` is written as the character it is, and images become their text. Code stays
    as it is: there markdown shows everything literally.
    """
    lines: list[str] = []
    prose: list[str] = []
    fence: str | None = None
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence is not None:
            lines.append(line)
            closes = mark and mark[1][0] == fence[0] and len(mark[1]) >= len(fence)
            if closes and not line.strip().strip(fence[0]):
                fence = None
        elif mark:
            lines += [_plain("\n".join(prose)), line] if prose else [line]
            prose, fence = [], mark[1]
        else:
            prose.append(line)
    if prose:
        lines.append(_plain("\n".join(prose)))
    return "\n".join(lines)


def _plain(prose: str) -> str:
    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(prose):
        parts += [_without_html(prose[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _without_html(prose[end:])])


def _without_html(text: str) -> str:
    return text.replace("<", "&lt;").replace("![", "!\\[")


def split_thought(text: str) -> tuple[str | None, str, bool]:
    """Return what a model thought, what it said, and whether the thought is finished."""
    thought = _THOUGHT.match(text)
    if thought is None:
        return None, text, True
    return thought[1].strip(), text[thought.end() :], "</think>" in thought[0]


def shown_messages(
    conversation: Conversation, words: ShownWords = ENGLISH
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the messages for a chat display, and for each the turn it belongs to."""
    messages: list[dict[str, Any]] = []
    turns: list[int] = []
    for index, turn in enumerate(conversation.turns):
        answer = turn.answers[-1] if turn.streaming else turn.answer
        gives_results = index > 0 and bool(conversation.turns[index - 1].answer.calls)
        question = harmless(turn.question)
        # Gradio shows a file by a path that it has checked to be one it was given.
        files = [{"role": "user", "content": {"path": item.path}} for item in turn.media]
        parts = [
            {
                "role": "user",
                "content": f"*{words.result}:* {question}" if gives_results else question,
            },
            *_answer(answer.content if answer.calls else answer.text, turn.streaming, words),
            *(_call(call, words) for call in answer.calls),
        ]
        if answer.calls and not answer.content.strip():
            del parts[1]
        if answer.state in ("stopped", "cut"):
            note = words.stopped if answer.state == "stopped" else words.cut
            parts[-1] = {**parts[-1], "content": f"{parts[-1]['content']}\n\n*({note})*".lstrip()}
        messages += [*files, *parts]
        turns += [index] * (len(files) + len(parts))
    return messages, turns


def _call(call: ToolCall, words: ShownWords) -> dict[str, Any]:
    """Return a call as a message: the function's name, and its arguments as code."""
    arguments = call.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=2) + 1)
    return {
        "role": "assistant",
        "content": f"{fence}json\n{text}\n{fence}",
        "metadata": {"title": f"{words.calls} {harmless(call.name)}", "status": "done"},
    }


def _answer(text: str, streaming: bool, words: ShownWords) -> Sequence[dict[str, Any]]:
    thought, said, finished = split_thought(text)
    parts: list[dict[str, Any]] = []
    if thought is not None:
        parts.append(
            {
                "role": "assistant",
                "content": harmless(thought) or "…",
                "metadata": {
                    "title": words.thinking,
                    "status": "done" if finished or not streaming else "pending",
                },
            }
        )
    if said or thought is None:
        parts.append({"role": "assistant", "content": harmless(said) or ("…" if streaming else "")})
    return parts
