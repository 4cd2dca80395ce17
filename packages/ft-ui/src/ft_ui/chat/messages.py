"""The conversation that a chat page shows: what each button does to it, without any page.

Values are immutable; every operation returns the conversation as it is afterwards, so a page can hold
one in its session and hand it out safely while an answer streams in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ft_core.agents import ParsedAnswer
from ft_core.engine import FinishReason
from ft_core.errors import DataError, UsageError
from ft_core.examples import Example, Message, ToolCall
from ft_ui.chat.media import Attached, parts_of, row_of

AnswerState = Literal["streaming", "done", "cut", "stopped"]
"""``cut`` ended at the token limit, ``stopped`` was ended by the person; both are incomplete."""

_STATE_AFTER: Mapping[FinishReason, AnswerState] = {
    "stop": "done",
    "length": "cut",
    "aborted": "stopped",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the assistant, or as much of it as there is yet.

    Attributes:
        text: as the model wrote it.
        state: whether it is complete.
        calls: the functions it calls, if any; ``content`` is what it says besides.
    """

    text: str = ""
    state: AnswerState = "streaming"
    calls: tuple[ToolCall, ...] = ()
    content: str = ""

    def message(self, weight: float | None = None) -> Message:
        """Return it as a message of a row; ``weight`` is that of its loss."""
        said = self.content if self.calls else self.text
        return Message("assistant", said, self.calls, weight=weight)

    @property
    def complete(self) -> bool:
        """Whether it ended by itself and says something: one that a model may learn."""
        return self.state == "done" and bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class Vote:
    """A person's choice between two answers to the same question, as positions in ``Turn.answers``."""

    chosen: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and the answers it got.

    Attributes:
        question: what the person wrote: a question, or the results of what the answer before it calls.
        answers: in order of arrival, at least one; each retry adds one.
        shown: position of the answer the page shows and the conversation goes on from.
        votes: choices between two of the answers.
        media: what is to be seen or heard with the question.
    """

    question: str
    answers: tuple[Answer, ...] = (Answer(),)
    shown: int = 0
    votes: tuple[Vote, ...] = ()
    media: tuple[Attached, ...] = ()

    @property
    def answer(self) -> Answer:
        """The answer that is shown."""
        return self.answers[self.shown]

    @property
    def streaming(self) -> bool:
        """Whether the newest answer is still being written."""
        return self.answers[-1].state == "streaming"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation: the system message, if any, and the turns so far.

    Attributes:
        turns: in order; only the last one's answer may be empty or still being written.
        system: ``None`` leaves it to the template, ``""`` asks for none.
        tools: functions that the model may call, in OpenAI's form; the person gives their results.
    """

    turns: tuple[Turn, ...] = ()
    system: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def streaming(self) -> bool:
        """Whether an answer is being written."""
        return bool(self.turns) and self.turns[-1].streaming

    def with_system(self, system: str | None) -> Conversation:
        """Start anew under this system message; answers given under another one don't carry over."""
        self._require_quiet("change the system message")
        return Conversation(system=system, tools=self.tools)

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> Conversation:
        """Start anew with these functions, which a model is told of before all else."""
        self._require_quiet("change the tools")
        return Conversation(system=self.system, tools=tuple(tools))

    def clear(self) -> Conversation:
        """Drop all turns and keep the system message."""
        self._require_quiet("clear the conversation")
        return Conversation(system=self.system, tools=self.tools)

    @property
    def awaited(self) -> tuple[ToolCall, ...]:
        """The calls whose results the next message gives."""
        return self.turns[-1].answer.calls if self.turns and not self.streaming else ()

    def ask(self, question: str, media: tuple[Attached, ...] = ()) -> Conversation:
        """Add a turn with this question; its answer is being written from then on.

        Args:
            question: what is asked.
            media: what is to be seen or heard with it.

        Raises:
            UsageError: the question is blank, or the one before it is not answered, or it doesn't give
                the results of what the last answer calls.
        """
        self._require_quiet("ask")
        if not question.strip():
            raise UsageError("the question is empty; write something first")
        if self.turns and not self.turns[-1].answer.text.strip():
            raise UsageError("the last question has no answer yet; retry it, edit it or undo it")
        _results(self.awaited, question)
        if media and self.awaited:
            raise UsageError("this message is the result of a call; attach files to the next one")
        return replace(self, turns=(*self.turns, Turn(question, media=media)))

    def prompt(self) -> tuple[Message, ...]:
        """Return the messages an engine continues to answer the last question.

        They end with that question: none of its answers is among them.

        Raises:
            UsageError: there is no question.
        """
        return self._context(max(len(self.turns) - 1, 0))

    def append(self, delta: str) -> Conversation:
        """Add a piece of text to the answer that is being written.

        Raises:
            UsageError: no answer is being written, as after ``stop``.
        """
        answer = self._written()
        return self._with_newest(replace(answer, text=answer.text + delta))

    def finish(self, reason: FinishReason = "stop") -> Conversation:
        """Mark the answer as ended, for the reason the engine gave.

        Raises:
            UsageError: no answer is being written.
        """
        return self._with_newest(replace(self._written(), state=_STATE_AFTER[reason]))

    def called(self, parsed: ParsedAnswer) -> Conversation:
        """Note what the newest answer, which has ended, calls."""
        newest = self._last().answers[-1]
        calls, content = parsed.tool_calls, parsed.content
        return self._with_newest(replace(newest, calls=calls, content=content)) if calls else self

    def stop(self) -> Conversation:
        """End the answer where it is and keep what there is of it.

        What comes in afterwards is refused by ``append``. Without an answer in the making nothing
        changes, as a click may come a moment too late.
        """
        return self.finish("aborted") if self.streaming else self

    def retry(self) -> Conversation:
        """Ask for another answer to the last question; the earlier ones stay, to be voted on.

        Raises:
            UsageError: an answer is being written, or there is no question.
        """
        self._require_quiet("retry")
        turn = self._last()
        return self._with_last(
            replace(turn, answers=(*turn.answers, Answer()), shown=len(turn.answers))
        )

    def show(self, answer: int) -> Conversation:
        """Go on from another answer to the last question.

        Raises:
            UsageError: an answer is being written, or there is no such answer.
        """
        self._require_quiet("choose an answer")
        turn = self._last()
        _check_answer(turn, len(self.turns) - 1, answer)
        return self._with_last(replace(turn, shown=answer))

    def edit(self, turn: int, question: str) -> Conversation:
        """Ask something else at a turn, about the same media; its answers and all later turns go.

        Args:
            turn: position of the turn, from 0.
            question: the new question.

        Raises:
            UsageError: there is no such turn, the question is blank, or an answer is being written.
        """
        self._require_quiet("edit")
        media = self._turn(turn).media
        return replace(self, turns=self.turns[:turn]).ask(question, media)

    def undo(self) -> tuple[Conversation, str]:
        """Take the last turn back; return the conversation and its question, to be written anew.

        Raises:
            UsageError: there is nothing to take back, or an answer is being written.
        """
        self._require_quiet("undo")
        turn = self._last()
        return replace(self, turns=self.turns[:-1]), turn.question

    def vote(self, turn: int, *, chosen: int, rejected: int) -> Conversation:
        """Record that one answer to a question is better than another.

        A later vote on the same two answers replaces the earlier one.

        Raises:
            UsageError: there is no such turn or answer, the two are the same or read the same, or the
                chosen one is empty or incomplete.
        """
        self._require_quiet("vote")
        voted = self._turn(turn)
        for answer in (chosen, rejected):
            _check_answer(voted, turn, answer)
        better, worse = voted.answers[chosen], voted.answers[rejected]
        if better.text == worse.text:
            raise UsageError("the two answers are the same; there is nothing to prefer")
        if not better.complete:
            raise UsageError("the chosen answer is empty or incomplete; a model must not learn it")
        if not worse.text.strip():
            raise UsageError("the rejected answer is empty; there is nothing to compare")
        kept = tuple(
            vote for vote in voted.votes if {vote.chosen, vote.rejected} != {chosen, rejected}
        )
        changed = replace(voted, votes=(*kept, Vote(chosen, rejected)))
        return replace(self, turns=(*self.turns[:turn], changed, *self.turns[turn + 1 :]))

    def training_row(self) -> Example:
        """Return the conversation, with the shown answers, as a row to train on.

        An incomplete answer in the middle stays as context with weight 0, so it is not learned; at the
        end its turn is left out, and so is a question without an answer.

        Raises:
            DataError: no complete answer is left to learn from.
        """
        turns = list(self.turns)
        while turns and not turns[-1].answer.complete:
            turns.pop()
        if not turns:
            raise DataError(
                "the conversation has no complete answer to learn from", rule="missing_answer"
            )
        messages = (*self._system_message(), *_said(turns))
        return row_of(Example(messages=messages, tools=self.tools))

    def preference_rows(self) -> list[Example]:
        """Return a preference row for every vote, in order of the turns."""
        return [
            row_of(
                Example(
                    messages=(*self._context(index), turn.answers[vote.chosen].message()),
                    rejected=(turn.answers[vote.rejected].message(),),
                    tools=self.tools,
                )
            )
            for index, turn in enumerate(self.turns)
            for vote in turn.votes
        ]

    def _context(self, index: int) -> tuple[Message, ...]:
        """The messages up to the question of a turn, with the shown answers before it."""
        turn, before = self._turn(index), self.turns[:index]
        return (*self._system_message(), *_said(before), *_asked(before, turn))

    def _system_message(self) -> tuple[Message, ...]:
        return () if self.system is None else (Message("system", self.system),)

    def _turn(self, index: int) -> Turn:
        if not self.turns:
            raise UsageError("the conversation is empty; ask something first")
        if not 0 <= index < len(self.turns):
            raise UsageError(
                f"there is no turn {index}; the conversation has turns 0 to {len(self.turns) - 1}"
            )
        return self.turns[index]

    def _last(self) -> Turn:
        return self._turn(max(len(self.turns) - 1, 0))

    def _with_last(self, turn: Turn) -> Conversation:
        return replace(self, turns=(*self.turns[:-1], turn))

    def _written(self) -> Answer:
        """The answer that is being written."""
        if not self.streaming:
            raise UsageError("no answer is being written; ask something or retry first")
        return self.turns[-1].answers[-1]

    def _with_newest(self, answer: Answer) -> Conversation:
        turn = self.turns[-1]
        return self._with_last(replace(turn, answers=(*turn.answers[:-1], answer)))

    def _require_quiet(self, action: str) -> None:
        if self.streaming:
            raise UsageError(f"can't {action} while an answer is being written; stop it first")


def _said(turns: Sequence[Turn]) -> Iterator[Message]:
    """Questions and shown answers; those that no model should learn have weight 0."""
    for index, turn in enumerate(turns):
        yield from _asked(turns[:index], turn)
        yield turn.answer.message(None if turn.answer.complete else 0.0)


def _asked(before: Sequence[Turn], turn: Turn) -> Iterable[Message]:
    """Return a question as messages: itself, or the result of each call of the answer before it."""
    calls = before[-1].answer.calls if before else ()
    if not calls:
        return [Message("user", parts_of(turn.question, turn.media))]
    return [
        Message("tool", result, tool_call_id=call.id, name=call.name)
        for call, result in zip(calls, _results(calls, turn.question), strict=True)
    ]


def _results(calls: Sequence[ToolCall], text: str) -> list[str]:
    """Return the result of each call.

    Raises:
        UsageError: there are several calls, and the text isn't a JSON list of as many results.
    """
    if len(calls) < 2:
        return [text]
    try:
        results = json.loads(text)
    except json.JSONDecodeError:
        results = None
    if not isinstance(results, list) or len(results) != len(calls):
        names = ", ".join(call.name for call in calls)
        raise UsageError(
            f"the answer calls {names}; write their results as a JSON list of {len(calls)}, in this order"
        )
    return [item if isinstance(item, str) else json.dumps(item) for item in results]


def _check_answer(turn: Turn, index: int, answer: int) -> None:
    if not 0 <= answer < len(turn.answers):
        raise UsageError(
            f"turn {index} has no answer {answer}; it has answers 0 to {len(turn.answers) - 1}"
        )
