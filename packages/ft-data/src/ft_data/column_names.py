"""Names that public data sets have for the columns of the shapes that are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ft_data import formats
from ft_data.formats import Row
from ft_data.formats.choice import REJECTED
from ft_data.formats.question import ANSWERS, QUESTIONS

_BESIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "system": ("system_prompt", "system_message"),
    "images": ("image",),
    "videos": ("video",),
    "audios": ("audio",),
}
"""For columns that stand beside any conversation, other names of them."""

_CHOSEN: Final = (
    *("chosen_response", "response_chosen", "chosen_messages", "chosen_conversations"),
    *("preferred_output", "preferred", "response_j", "accepted"),
)
_REJECTED: Final = (
    *("response_rejected", "non_preferred_output", "dispreferred", "response_k"),
    *("rejected_answer", "rejected_output"),
)
_QUESTIONS: Final = (*("problem", "user", "human", "q", "input", "inputs", "prompts"),)
_ANSWERS: Final = (
    *("solution", "assistant", "bot", "gpt", "a", "target", "targets", "answers", "responses"),
    *("reply", "outputs"),
)
_TEXTS: Final = ("content", "raw_content", "内容", "正文")
_CHINESE: Final[Mapping[str, str]] = {
    "指令": "instruction",
    "输入": "input",
    "输出": "output",
    "历史": "history",
    "系统": "system",
    "问题": "question",
    "提问": "question",
    "问": "question",
    "回答": "answer",
    "答案": "answer",
    "答": "answer",
}

_KNOWN: Final = frozenset(
    {
        *("messages", "conversations", "conversation", "history", "system", "input", "context"),
        *(*QUESTIONS, *ANSWERS, *REJECTED, "chosen", "label", "text", "tools"),
        *("images", "videos", "audios", *_QUESTIONS, *_ANSWERS, *_TEXTS, *_CHOSEN, *_REJECTED),
    }
)


def usual_names(rows: Sequence[Row]) -> dict[str, str]:
    """Return what the columns of some rows are called in the shapes that are read.

    Upper case doesn't matter. Other names for question, answer, preferred and rejected count only where the rows
    have no such columns by the usual ones.

    Args:
        rows: the first rows of a source.

    Returns:
        For each column with another name the usual one.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    names = _spelled(columns)
    present = {names.get(name, name): name for name in columns}
    found = _choice(present)
    if not found and not _fit(rows, names):
        found = _pair(present, rows) or _text(present, rows)
    names.update({present[old]: new for old, new in found.items()})
    for new, others in _BESIDE.items():
        old = _first(others, present)
        if new not in present and old is not None and _holds(rows, present[old], new):
            names[present[old]] = new
    return names


def _spelled(columns: Iterable[str]) -> dict[str, str]:
    """Return the columns that are a usual one in upper case or in Chinese."""
    taken = set(columns)
    names: dict[str, str] = {}
    for name in columns:
        plain = name.strip().lower()
        plain = _CHINESE.get(plain, plain)
        if plain != name and plain in _KNOWN and plain not in taken:
            taken.add(plain)
            names[name] = plain
    return names


def _fit(rows: Sequence[Row], names: Mapping[str, str]) -> bool:
    """Whether some row is a whole conversation already."""
    for row in rows:
        usual = {names.get(name, name): value for name, value in row.items()}
        found = formats.find(usual)
        if found is not None and formats.fits(found.format, usual) > 0:
            return True
    return False


def _choice(present: Mapping[str, str]) -> dict[str, str]:
    chosen, rejected = _first(_CHOSEN, present), _first(_REJECTED, present)
    if "chosen" not in present and chosen is None:
        return {}
    if rejected is None and not any(name in present for name in REJECTED):
        return {}
    found = {} if "chosen" in present or chosen is None else {chosen: "chosen"}
    if rejected is not None and not any(name in present for name in REJECTED):
        found[rejected] = "rejected"
    if not any(name in present for name in QUESTIONS) and (question := _first(_QUESTIONS, present)):
        found[question] = "question"
    return found


def _pair(present: Mapping[str, str], rows: Sequence[Row]) -> dict[str, str]:
    own_question = any(name in present for name in QUESTIONS)
    own_answer = any(name in present for name in ANSWERS)
    if "text" in present and not own_question:
        return {}
    question = None if own_question else _first(_QUESTIONS, present)
    answer = None if own_answer else _first(_ANSWERS, present)
    if (question is None and not own_question) or (answer is None and not own_answer):
        return {}
    if question is not None and not _holds(rows, present[question], "question"):
        return {}
    found = {} if question is None else {question: "question"}
    if answer is not None:
        found[answer] = "answer"
    return found


def _text(present: Mapping[str, str], rows: Sequence[Row]) -> dict[str, str]:
    old = _first(_TEXTS, present)
    alone = not any(name in present for name in (*QUESTIONS, *ANSWERS, "text", "role"))
    return {old: "text"} if old and alone and _holds(rows, present[old], "text") else {}


def _first(names: Sequence[str], present: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in present), None)


def _holds(rows: Sequence[Row], column: str, usual: str) -> bool:
    """Whether a column's values are of the kind that its usual name promises."""
    value: Any = next((row[column] for row in rows if row.get(column) is not None), None)
    if usual in ("question", "text", "system"):
        return isinstance(value, str)
    return value is not None
