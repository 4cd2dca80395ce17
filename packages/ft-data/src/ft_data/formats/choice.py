"""Rows that compare answers or judge one: preference pairs and labelled answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ft_core.examples import Example, Message, Source
from ft_data.formats.conversation import (
    CONVERSATIONS,
    DIALOGUE,
    MESSAGES,
    SHAREGPT,
    talk_column,
)
from ft_data.formats.question import (
    ALPACA,
    ANSWERS,
    PROMPT,
    QUERY,
    QUESTION,
    answer_turns,
    instruction_prompt,
    prompt_prompt,
    query_prompt,
)
from ft_data.formats.shape import Format, Row, columns, fault, has, kind_of
from ft_data.formats.shared import example, with_system
from ft_data.formats.transcript import read_transcript
from ft_data.formats.turns import read_talk

REJECTED = (
    *("rejected", "rejected_response", "rejected_messages", "rejected_conversations"),
    "rejected_conversation",
)
"""Columns that hold a rejected answer."""
LABELS = ("label", "kto_tag")
"""Columns that judge an answer."""
_BASES = (QUERY, ALPACA, CONVERSATIONS, MESSAGES, SHAREGPT, DIALOGUE, PROMPT, QUESTION)
_TRUE = frozenset({"true", "1", "yes", "t", "y", "good", "desirable", "desired"})
_FALSE = frozenset({"false", "0", "no", "f", "n", "bad", "undesirable", "undesired"})


def _matches_preference(row: Row) -> str | None:
    rejected = next((name for name in REJECTED if has(row, name)), None)
    if rejected is None:
        return None
    if has(row, "chosen"):
        return columns("chosen", rejected)
    base = _base(row)
    return None if base is None else f"{columns(rejected)} beside a conversation ({base.name})"


def _read_preference(row: Row, source: Source) -> Example:
    rejected_field = next(name for name in REJECTED if has(row, name))
    rejected = _answer(row, rejected_field, source)
    if has(row, "chosen"):
        chosen = _answer(row, "chosen", source)
        messages = chosen if _is_whole(chosen) else _answered(_prompt(row, source), chosen, source)
    else:
        base = _base(row)
        assert base is not None  # _matches_preference found it
        if talk_column(row) is None and not any(has(row, name) for name in ANSWERS):
            raise fault(source, "there is no answer to prefer", "chosen", "missing_answer")
        messages = list(base.read(row, source).messages)
        if not messages or messages[-1].role != "assistant":
            raise fault(source, "does not end in an answer to prefer", None, "missing_answer")
    messages = with_system(messages, row, source)
    if _is_whole(rejected):
        rejected = _after_prompt(
            with_system(rejected, row, source), messages, rejected_field, source
        )
    if not any(_says_something(turn) for turn in rejected):
        raise fault(source, "the rejected answer is empty", rejected_field, "missing_answer")
    return example(messages, row, source, rejected=tuple(rejected))


def _answer(row: Row, field: str, source: Source) -> list[Message]:
    """Return an answer's turns, or those of a whole conversation, which may be one text."""
    value = row[field]
    if isinstance(value, str) and (spoken := read_transcript(value)):
        return spoken
    if isinstance(value, (list, tuple)) and field.startswith("rejected_conv"):
        return read_talk(value, field, source)
    return answer_turns(row, field, source)


def _answered(prompt: list[Message], chosen: list[Message], source: Source) -> list[Message]:
    """Put the chosen answer after its prompt, which may hold it already."""
    if not chosen:
        raise fault(source, "there is no answer to learn from", "chosen", "missing_answer")
    if prompt and prompt[-1].role == "assistant":
        if prompt[-1].text.strip() != chosen[-1].text.strip():
            raise fault(
                source,
                "the turns before the answers end in another answer; which of them is chosen?",
                "chosen",
                "answered_prompt",
            )
        prompt = prompt[:-1]
    return [*prompt, *chosen]


def _is_whole(turns: Sequence[Message]) -> bool:
    """Whether the turns are a whole conversation instead of the answer alone."""
    return bool(turns) and turns[0].role in ("system", "user")


def _says_something(turn: Message) -> bool:
    return turn.role == "assistant" and bool(turn.text.strip() or turn.tool_calls)


def _after_prompt(
    rejected: list[Message], messages: list[Message], field: str, source: Source
) -> list[Message]:
    prompt = messages[:-1] if messages and messages[-1].role == "assistant" else messages
    if rejected[: len(prompt)] != prompt:
        raise fault(
            source,
            "the chosen and the rejected conversation differ before the last answer",
            field,
            "different_prompts",
        )
    return rejected[len(prompt) :]


def _prompt(row: Row, source: Source) -> list[Message]:
    """Return the turns before the answers, from whatever column holds them."""
    talk = talk_column(row)
    if talk is not None:
        return read_talk(row[talk], talk, source)
    if has(row, "instruction"):
        return instruction_prompt(row, source)
    if has(row, "query"):
        return query_prompt(row, source)
    for name in ("prompt", "question"):
        if has(row, name):
            return prompt_prompt(row, source, name)
    raise fault(
        source,
        "there is no question before the answers; give one in prompt, query, messages or conversations",
        None,
        "missing_question",
    )


def _base(row: Row) -> Format | None:
    return next((form for form in _BASES if form.matches(row)), None)


def as_label(value: object) -> bool | None:
    """Read a judgement: true or false, also as 1 or 0, yes or no, good or bad; ``None`` if it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str):
        said = value.strip().lower()
        return True if said in _TRUE else False if said in _FALSE else None
    return None


def _matches_labelled(row: Row) -> str | None:
    for name in LABELS:
        if as_label(row.get(name)) is not None and (base := _base(row)) is not None:
            return f"it has a true or false {name!r} beside a conversation ({base.name})"
    return None


def _read_labelled(row: Row, source: Source) -> Example:
    field = next((name for name in LABELS if has(row, name)), None)
    label = None if field is None else as_label(row[field])
    if label is None:
        given = "missing" if field is None else kind_of(row[field])
        raise fault(source, f"must be true or false, but is {given}", field or "label", "bad_label")
    base = _base(row)
    assert base is not None  # _matches_labelled found it
    read = base.read(row, source)
    if not read.messages or read.messages[-1].role != "assistant":
        raise fault(source, "does not end in an answer to judge", None, "missing_answer")
    return replace(read, label=label)


PREFERENCE = Format(
    "preference",
    "chosen and rejected beside a prompt, or rejected_response beside a conversation",
    _matches_preference,
    _read_preference,
)
LABELLED = Format(
    "labelled",
    "a true or false label (or kto_tag) beside a conversation",
    _matches_labelled,
    _read_labelled,
)
