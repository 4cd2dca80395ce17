"""Turns that look wrong: their order, empty ones, answers that refuse, repeat or break off."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final

from ft_core.examples import Example, Message
from ft_data.checks.findings import Finding, answers_of, found, place_of

_BEGIN: Final = 240
"""Characters at the begin of an answer in which a refusal stands."""

_REFUSAL: Final = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.]{0,80}\b(?:can ?not|can['\u2019]t|unable|don['\u2019]t)"
    r"|\b(?:sorry|apologi[sz]e)\b[^.]{0,60}\b(?:can ?not|can['\u2019]t|unable|not able|won['\u2019]t)"
    r"|^\W*i (?:can ?not|can['\u2019]t|won['\u2019]t|am (?:unable|not able) to|['\u2019]m unable to) "
    r"(?:help|assist|fulfil|fulfill|comply|provide|answer|do that|create|generate|write|discuss)"
    r"|(?:抱歉|对不起)[^。]{0,20}(?:无法|不能)|作为[^。]{0,12}(?:AI|人工智能|语言模型)[^。]{0,20}(?:无法|不能)"
    r"|^\W*lo siento[^.]{0,40}no puedo|^\W*(?:je suis )?désolée?[^.]{0,40}ne (?:peux|puis)"
    r"|^\W*(?:es )?tut mir leid[^.]{0,40}(?:kann|nicht)",
    re.IGNORECASE,
)


def orders(examples: Sequence[Example]) -> list[Finding]:
    """Find conversations whose speakers don't take turns as chat formats expect."""
    repeated, begun, open_ended, unasked = [], [], [], []
    for index, example in enumerate(examples):
        roles = [message.role for message in example.messages if message.role != "system"]
        place = place_of(example, index)
        if any(before == after != "tool" for before, after in itertools.pairwise(roles)):
            repeated.append(place)
        if roles and roles[0] == "assistant":
            begun.append(place)
        if roles and roles[-1] != "assistant":
            open_ended.append(place)
        if _has_unasked_result(example.messages):
            unasked.append(place)
    return [
        *found(
            "repeated_role",
            "rows with two turns of one role in a row, which many templates refuse",
            repeated,
        ),
        *found("answer_first", "rows that begin with an answer to nothing", begun),
        *found(
            "open_end",
            "rows that don't end with an answer; nothing is learned of the last turn",
            open_ended,
        ),
        *found("result_without_call", "rows in which a result follows no call", unasked),
    ]


def _has_unasked_result(messages: Sequence[Message]) -> bool:
    """Whether a result stands where no call can have been; calls may be written into the text of an answer."""
    return any(
        after.role == "tool" and before.role not in ("assistant", "tool")
        for before, after in itertools.pairwise(messages)
    )


def empty_turns(examples: Sequence[Example]) -> list[Finding]:
    """Find turns in which nothing is said."""
    questions, answers = [], []
    for index, example in enumerate(examples):
        roles = {message.role for message in example.messages if _is_empty(message)}
        if "user" in roles:
            questions.append(place_of(example, index))
        if any(_is_empty(message) for message in answers_of(example)):
            answers.append(place_of(example, index))
    return [
        *found("empty_question", "rows in which a user says nothing", questions),
        *found("empty_answer", "rows in which an answer is empty", answers),
    ]


def _is_empty(message: Message) -> bool:
    if message.tool_calls or message.text.strip():
        return False
    return isinstance(message.content, str) or not message.content


def answers(examples: Sequence[Example]) -> list[Finding]:
    """Find answers that refuse, only repeat the question, break off, or are preferred to themselves."""
    refused, copied, cut, same = [], [], [], []
    for index, example in enumerate(examples):
        place, answer = place_of(example, index), example.answer
        if any(_REFUSAL.search(turn.text[:_BEGIN]) for turn in _trained(example)):
            refused.append(place)
        if answer and any(answer == m.text for m in example.prompt if m.role == "user"):
            copied.append(place)
        if answer and len(answer) > 200 and answer.rstrip()[-1:].isalnum():
            cut.append(place)
        if example.rejected and answer is not None and example.rejected[-1].text == answer:
            same.append(place)
    return [
        *found("refused_answer", "rows whose answer refuses, which teaches to refuse", refused),
        *found("answer_repeats_question", "answers that only repeat a question", copied),
        *found("answer_looks_cut", "long answers that end within a sentence", cut),
        *found("same_answers", "pairs whose chosen and rejected answers are equal", same),
    ]


def _trained(example: Example) -> list[Message]:
    if example.label is False:
        return []
    return [turn for turn in example.messages if turn.role == "assistant" and turn.weight != 0]
