"""Saved conversations: plain JSON, one conversation a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from ft_core.errors import DataError, UsageError
from ft_core.examples import ToolCall
from ft_core.samples import MediumKind
from ft_ui.chat.media import KINDS, Attached
from ft_ui.chat.messages import Answer, AnswerState, Conversation, Turn, Vote


def conversation_to_json(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation as plain JSON; ``conversation_from_json`` reads it."""
    return {
        "system": conversation.system,
        "tools": list(conversation.tools),
        "turns": [_turn_to_json(turn) for turn in conversation.turns],
    }


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    written: dict[str, Any] = {
        "question": turn.question,
        "answers": [_answer_to_json(item) for item in turn.answers],
        "shown": turn.shown,
        "votes": [asdict(vote) for vote in turn.votes],
    }
    if turn.media:
        written["media"] = [asdict(item) for item in turn.media]
    return written


def _answer_to_json(answer: Answer) -> dict[str, Any]:
    written: dict[str, Any] = {"text": answer.text, "state": answer.state}
    if answer.calls:
        written["content"] = answer.content
        written["calls"] = [asdict(call) for call in answer.calls]
    return written


def conversation_from_json(data: object, path: str = "conversation") -> Conversation:
    """Read what ``conversation_to_json`` wrote.

    An answer that was being written when it was saved is read as stopped: nothing writes it any more.

    Args:
        data: parsed JSON.
        path: its file, for messages.

    Raises:
        DataError: it is something else; the message names the first field that doesn't fit.
    """
    return _Reader(path).conversation(data)


def load_conversation(path: str | Path) -> Conversation:
    """Read a saved conversation.

    Raises:
        DataError: there is no such file, or it holds something else than a conversation.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = json.loads(text)
    except OSError as error:
        raise DataError(
            f"can't be read ({error.strerror}); give the file of a saved conversation",
            path=str(path),
            rule="no_file",
        ) from None
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text", path=str(path), rule="encoding") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"is not JSON: {error.msg} at column {error.colno}",
            path=str(path),
            line=error.lineno,
            rule="invalid_json",
        ) from None
    return conversation_from_json(data, str(path))


def save_conversation(conversation: Conversation, path: str | Path) -> None:
    """Write a conversation to a file, whole or not at all; an existing file is replaced.

    Raises:
        UsageError: the file can't be written.
    """
    text = json.dumps(conversation_to_json(conversation), ensure_ascii=False, indent=2) + "\n"
    write_text(text, path)


def write_text(text: str, path: str | Path) -> None:
    """Write a UTF-8 file, whole or not at all; missing directories are made.

    Raises:
        UsageError: it can't be written; the message says why.
    """
    file = Path(path).expanduser()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path}: can't be written ({error.strerror}); choose another place"
        ) from None


class _Reader:
    """Checks parsed JSON field by field."""

    def __init__(self, path: str) -> None:
        self._path = path

    def conversation(self, data: object) -> Conversation:
        item = self._object(data, None)
        system = item.get("system")
        if system is not None and not isinstance(system, str):
            self._fail("system", "must be a text or null")
        return Conversation(
            turns=tuple(
                self._turn(turn, f"turns[{index}]")
                for index, turn in enumerate(self._list(item, "turns", "turns"))
            ),
            system=cast(str | None, system),
            tools=tuple(
                self._object(tool, f"tools[{index}]")
                for index, tool in enumerate(self._list({"tools": [], **item}, "tools", "tools"))
            ),
        )

    def _turn(self, data: object, field: str) -> Turn:
        item = self._object(data, field)
        answers = tuple(
            self._answer(answer, f"{field}.answers[{index}]")
            for index, answer in enumerate(self._list(item, "answers", f"{field}.answers"))
        )
        if not answers:
            self._fail(f"{field}.answers", "is empty; a turn has at least one answer")
        votes = (
            (self._object(vote, f"{field}.votes[{index}]"), f"{field}.votes[{index}]")
            for index, vote in enumerate(self._list(item, "votes", f"{field}.votes"))
        )
        return Turn(
            question=self._text(item, "question", f"{field}.question"),
            answers=answers,
            shown=self._position(item, "shown", f"{field}.shown", answers),
            votes=tuple(
                Vote(
                    self._position(vote, "chosen", f"{place}.chosen", answers),
                    self._position(vote, "rejected", f"{place}.rejected", answers),
                )
                for vote, place in votes
            ),
            media=tuple(
                self._medium(medium, f"{field}.media[{index}]")
                for index, medium in enumerate(
                    self._list({"media": [], **item}, "media", f"{field}.media")
                )
            ),
        )

    def _medium(self, data: object, field: str) -> Attached:
        item = self._object(data, field)
        kind = self._text(item, "kind", f"{field}.kind")
        if kind not in KINDS:
            self._fail(f"{field}.kind", f"is {kind!r}; allowed are {', '.join(KINDS)}")
        return Attached(cast(MediumKind, kind), self._text(item, "path", f"{field}.path"))

    def _answer(self, data: object, field: str) -> Answer:
        item = self._object(data, field)
        state = self._text(item, "state", f"{field}.state")
        if state not in get_args(AnswerState):
            self._fail(
                f"{field}.state", f"is {state!r}; allowed are {', '.join(get_args(AnswerState))}"
            )
        text = self._text(item, "text", f"{field}.text")
        state = "stopped" if state == "streaming" else state
        calls = tuple(
            self._call(call, f"{field}.calls[{index}]")
            for index, call in enumerate(
                self._list({"calls": [], **item}, "calls", f"{field}.calls")
            )
        )
        content = self._text({"content": "", **item}, "content", f"{field}.content")
        return Answer(text, cast(AnswerState, state), calls, content)

    def _call(self, data: object, field: str) -> ToolCall:
        item = self._object(data, field)
        arguments, number = item.get("arguments"), item.get("id")
        if not isinstance(arguments, str | dict):
            self._fail(f"{field}.arguments", "must be an object or a text")
        if number is not None and not isinstance(number, str):
            self._fail(f"{field}.id", "must be a text or null")
        return ToolCall(
            self._text(item, "name", f"{field}.name"),
            cast("Mapping[str, Any] | str", arguments),
            cast("str | None", number),
        )

    def _object(self, data: object, field: str | None) -> Mapping[str, Any]:
        if not isinstance(data, dict):
            self._fail(field, "must be an object; is this a saved conversation?")
        return cast(Mapping[str, Any], data)

    def _list(self, item: Mapping[str, Any], key: str, field: str) -> list[Any]:
        value = item.get(key)
        if not isinstance(value, list):
            self._fail(field, "must be a list; is this a saved conversation?")
        return cast(list[Any], value)

    def _text(self, item: Mapping[str, Any], key: str, field: str) -> str:
        value = item.get(key)
        if not isinstance(value, str):
            self._fail(field, "must be a text")
        return cast(str, value)

    def _position(
        self, item: Mapping[str, Any], key: str, field: str, answers: tuple[Answer, ...]
    ) -> int:
        value = item.get(key)
        if type(value) is not int or not 0 <= value < len(answers):
            self._fail(field, f"must be a position from 0 to {len(answers) - 1}")
        return cast(int, value)

    def _fail(self, field: str | None, message: str) -> None:
        raise DataError(message, path=self._path, field=field, rule="invalid_conversation")
