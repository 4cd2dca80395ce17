"""Multiple choice, pattern ``ceval``: id, question, A, B, C, D, answer and perhaps explanation.

The layout is that of C-Eval (Huang et al. 2023, arXiv:2305.08322). A question may have fewer or more
choices than four.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from ft_eval.respondents.protocol import Prompt
from ft_eval.scoring.language import is_chinese
from ft_eval.tasks.custom import Source
from ft_eval.tasks.files import Row, read_rows
from ft_eval.tasks.task import Item, Method, Task

MOST_SHOTS = 5
"""Solved examples in front of a question where nothing else is said: as many as C-Eval shows."""

LETTERS = string.ascii_uppercase[:10]

_OPENING = {
    False: "Answer the multiple-choice question with the letter of the right choice.",
    True: "以下是单项选择题，请直接给出正确答案的选项字母。",
}
_ANSWER = {False: "Answer:", True: "答案："}


def build(source: Source) -> Task:
    """Read a file of multiple-choice questions."""
    rows = read_rows(source.file)
    solved = [] if source.examples is None else read_rows(source.examples)
    shots = min(MOST_SHOTS if source.shots is None else source.shots, len(solved))
    chinese = is_chinese("".join(row.text("question") for row in rows[:20]))
    examples = [_shown(row, chinese) + _gap(chinese) + _right(row) for row in solved[:shots]]
    method: Method = source.entry.method or ("likelihood" if source.scores else "letter")
    return Task(
        source.entry.name,
        tuple(_item(row, number, examples, source, chinese) for number, row in enumerate(rows)),
        method,
        tuple(source.entry.metrics or ("accuracy",)),
        shots=shots,
        subset=source.subset,
        max_new_tokens=source.entry.max_new_tokens or 512,
    )


def _item(row: Row, number: int, examples: Sequence[str], source: Source, chinese: bool) -> Item:
    text = "\n\n".join([_OPENING[chinese], *examples, _shown(row, chinese)])
    prompt = Prompt(text=text)
    if source.chat:
        prompt = Prompt.ask(text, system=source.entry.system)
    # After plain text a letter is a word of its own; in a conversation it begins the answer.
    before = "" if source.chat else _gap(chinese)
    return Item(
        row.text("id", str(number)),
        prompt,
        (_right(row),),
        tuple(_letters(row)),
        {"before": before},
        row.place,
    )


def _gap(chinese: bool) -> str:
    return "" if chinese else " "


def _shown(row: Row, chinese: bool) -> str:
    choices = [f"{letter}. {row.text(letter)}" for letter in _letters(row)]
    return "\n".join([row.text("question"), *choices, _ANSWER[chinese]])


def _letters(row: Row) -> list[str]:
    """Return the letters whose columns are filled, without gaps.

    Raises:
        DataError: fewer than two.
    """
    letters = []
    for letter in LETTERS:
        if row.values.get(letter) in (None, ""):
            break
        letters.append(letter)
    if len(letters) < 2:
        row.fail(
            f"is missing; a question needs choices A and B, and the row has {', '.join(row.values)}",
            "A" if not letters else "B",
            "missing_column",
        )
    return letters


def _right(row: Row) -> str:
    answer = row.text("answer").upper()
    if answer not in _letters(row):
        row.fail(
            f"is {row.text('answer')!r}; it must be one of {', '.join(_letters(row))}",
            "answer",
            "unknown_choice",
        )
    return answer
