"""Rows with one question and one answer in columns of their own, and plain text."""

from __future__ import annotations

from collections.abc import Callable

from ft_core.examples import Example, Message, Source
from ft_data.formats.calls import are_calls, read_calls
from ft_data.formats.shape import Format, Row, columns, fault, has, parse_nested, text_in
from ft_data.formats.shared import example, read_history, system_turn
from ft_data.formats.transcript import read_transcript
from ft_data.formats.turns import read_turns

ANSWERS = ("response", "output", "completion", "answer")
"""Columns that hold an answer; each shape has one of its own, and takes the others where that is missing."""

QUESTIONS = ("query", "instruction", "prompt", "question")
"""Columns that hold a question, one for each shape with question and answer."""


def instruction_prompt(row: Row, source: Source) -> list[Message]:
    """Return the turns before the answer: system, history, then instruction and input joined by a line."""
    return _question("instruction", row, source)


def query_prompt(row: Row, source: Source) -> list[Message]:
    """Return the turns before the answer: system, history, query."""
    return _question("query", row, source)


def prompt_prompt(row: Row, source: Source, field: str = "prompt") -> list[Message]:
    """Return the turns before the answer from ``prompt``: a text, a transcript, or a list of turns."""
    value = row.get(field)
    value = parse_nested(value) if isinstance(value, str) else value
    if isinstance(value, dict) and isinstance(value.get("messages"), (list, tuple)):
        if value.get("tools"):
            message = "holds tools; put them into a column 'tools' of the row"
            raise fault(source, message, field, "wrong_type")
        value = value["messages"]  # as OpenAI writes the input of preferences
    if isinstance(value, (list, tuple)):
        turns = read_turns(value, field, source)
        if all(turn.role == "system" for turn in turns):
            raise fault(source, "there is no question", field, "missing_question")
        return turns
    prompt = text_in(row, field, source)
    if prompt is not None and (spoken := read_transcript(prompt)):
        return [*system_turn(row, source), *spoken]
    return _question(field, row, source)


def _question(field: str, row: Row, source: Source) -> list[Message]:
    parts = [text_in(row, name, source) or "" for name in (field, *_beside(field, row))]
    question = "\n".join(part for part in parts if part)
    if not question.strip():
        raise fault(source, "there is no question", field, "missing_question")
    return [*system_turn(row, source), *read_history(row, source), Message("user", question)]


def _beside(field: str, row: Row) -> tuple[str, ...]:
    """Return the columns that belong to a question."""
    if field == "instruction":
        return ("input", "context") if "context" in row else ("input",)
    return ("context",) if field == "question" and isinstance(row.get("context"), str) else ()


def answer_turns(row: Row, field: str, source: Source) -> list[Message]:
    """Return an answer column as turns: a text, calls, one turn or a list of turns."""
    value = row.get(field)
    if (has(row, "tools") or has(row, "functions")) and are_calls(value):
        return [Message("assistant", "", read_calls(value, field, source))]
    # Tables keep lists as text; an answer in a column for texts may well be JSON itself.
    if isinstance(value, str) and field not in ("response", "output", "answer"):
        nested = parse_nested(value)
        value = nested if _are_turns(nested) else value
    if field == "answer":
        value = _first_answer(value)
    if isinstance(value, (list, tuple, dict)):
        turns = read_turns(value, field, source)
        if all(turn.role != "assistant" for turn in turns):
            raise fault(source, "there is no answer to learn from", field, "missing_answer")
        return turns
    text = value if isinstance(value, str) else text_in(row, field, source)
    if text is None or not text.strip():
        raise fault(source, "there is no answer to learn from", field, "missing_answer")
    return [Message("assistant", text)]


def _first_answer(value: object) -> object:
    """Return the first of several answers that are as good, as sets of questions with extracts have them."""
    if isinstance(value, dict) and isinstance(value.get("text"), (list, tuple)):
        value = value["text"]
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return value[0] if value else ""
    return value


def _are_turns(value: object) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return bool(items) and all(
        isinstance(item, dict) and ("role" in item or "from" in item) for item in items
    )


def answer_column(row: Row, own: str) -> str:
    """Return the column that holds the answer: a shape's own one, or the first other one that the row has."""
    if has(row, own):
        return own
    return next((name for name in ANSWERS if name != own and has(row, name)), own)


def _matches(question: str, own: str) -> Callable[[Row], str | None]:
    def matches(row: Row) -> str | None:
        if question not in row or (row[question] is None and own not in row):
            return None
        answer = answer_column(row, own)
        return columns(question, answer) if answer in row else columns(question)

    return matches


def _reads(
    own: str, prompt: Callable[[Row, Source], list[Message]]
) -> Callable[[Row, Source], Example]:
    def read(row: Row, source: Source) -> Example:
        before = prompt(row, source)
        return example([*before, *answer_turns(row, answer_column(row, own), source)], row, source)

    return read


def _pair(
    name: str,
    question: str,
    own: str,
    summary: str,
    prompt: Callable[[Row, Source], list[Message]],
) -> Format:
    return Format(
        name, summary, _matches(question, own), _reads(own, prompt), prompt, (question, own)
    )


def _matches_response(row: Row) -> str | None:
    if "response" in row and not any(name in row for name in QUESTIONS):
        return f"{columns('response')} and no 'query'"
    return None


def _plain(field: str) -> Callable[[Row, Source], Example]:
    def read(row: Row, source: Source) -> Example:
        text = text_in(row, field, source)
        if text is None or not text.strip():
            raise fault(source, "there is no text to learn from", field, "empty_text")
        return example((), row, source, text=text)

    return read


QUERY = _pair(
    "query", "query", "response", "query, response and optionally history, system", query_prompt
)
ALPACA = _pair(
    "alpaca",
    "instruction",
    "output",
    "instruction, output and optionally input, history, system",
    instruction_prompt,
)
PROMPT = _pair(
    "prompt",
    "prompt",
    "completion",
    "prompt and completion, each a text or a list of turns",
    prompt_prompt,
)
QUESTION = _pair(
    "question",
    "question",
    "answer",
    "question, answer and optionally context, history, system",
    lambda row, source: prompt_prompt(row, source, "question"),
)
RESPONSE = Format(
    "response",
    "response without query: plain text to continue",
    _matches_response,
    _plain("response"),
)
TEXT = Format(
    "text",
    "text: plain text to continue",
    lambda row: columns("text") if "text" in row else None,
    _plain("text"),
)
