"""A chat format as the few texts that Ollama's form of it is made of, found by rendering marked conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ft_core.errors import DataError, ModelError
from ft_core.examples import Message
from ft_core.templates.template import Template

_SYSTEM, _QUESTION, _ANSWER = "SYSTEMsystemSYSTEM", "QUESTION{}question", "ANSWER{}answer"


@dataclass(frozen=True, slots=True)
class Pieces:
    """What stands around the texts of a conversation.

    Attributes:
        opening: before the first question, where there is no system message.
        before_system: before the system message; ``None`` where the format has no place for one.
        after_system: between the system message and the first question.
        before_question: before each question.
        before_answer: between a question and its answer.
        after_answer: between an answer and the next question; ``None`` where there is only one round.
    """

    opening: str
    before_system: str | None
    after_system: str
    before_question: str
    before_answer: str
    after_answer: str | None

    def render(self, messages: Sequence[Message]) -> str:
        """Render a conversation that ends with a question, as the Modelfile's template does."""
        system = "\n\n".join(str(item.content) for item in messages if item.role == "system")
        parts = [self.opening]
        if system and self.before_system is not None:
            parts = [self.before_system, system, self.after_system]
        for item in messages:
            if item.role == "user":
                parts += [self.before_question, str(item.content), self.before_answer]
            elif item.role == "assistant":
                parts += [str(item.content), self.after_answer or ""]
        return "".join(parts)


def find_pieces(template: Template) -> Pieces:
    """Find the pieces of a chat format, and check that they make the prompts that it makes.

    Raises:
        ModelError: the format can't be put together from them.
    """
    first, second = (Message("user", _QUESTION.format(n)) for n in (1, 2))
    answer = Message("assistant", _ANSWER.format(1))
    opening, tail = _split(_prompt(template, [first]), str(first.content))
    linking: str | None = None
    if template.multi_turn:
        text = _prompt(template, [first, answer, second])
        _, rest = _split(text, str(answer.content))
        linking, _ = _split(rest, str(second.content))
    before_system, between = _around_system(template, first)
    ends = [text for text in (opening, between, linking) if text is not None]
    question = _common_end(ends)
    found = Pieces(
        opening=opening.removesuffix(question),
        before_system=before_system,
        after_system="" if between is None else between.removesuffix(question),
        before_question=question,
        before_answer=tail,
        after_answer=None if linking is None else linking.removesuffix(question),
    )
    _check(template, found)
    return found


def _around_system(template: Template, question: Message) -> tuple[str | None, str | None]:
    try:
        text = _prompt(template, [Message("system", _SYSTEM), question])
    except DataError:
        return None, None
    if text.count(_SYSTEM) != 1 or text.index(_SYSTEM) > text.index(str(question.content)):
        raise _inexpressible(
            template, "it doesn't put the system message before the first question"
        )
    before, rest = _split(text, _SYSTEM)
    between, _ = _split(rest, str(question.content))
    return before, between


def _common_end(texts: Sequence[str]) -> str:
    """Return the longest text that all of them end with."""
    shortest = min(texts, key=len)
    starts = range(len(shortest) + 1)
    return next(
        shortest[at:] for at in starts if all(text.endswith(shortest[at:]) for text in texts)
    )


def _check(template: Template, pieces: Pieces) -> None:
    """Compare with the format itself on conversations of one to three rounds, with and without a system message."""
    for rounds in (1, 2, 3) if template.multi_turn else (1,):
        for system in (
            ((), (Message("system", "Be brief."),)) if pieces.before_system is not None else ((),)
        ):
            talk = list(system)
            for number in range(1, rounds + 1):
                talk.append(Message("user", f"How about {number}?"))
                if number < rounds:
                    talk.append(Message("assistant", f"It is {number}."))
            if pieces.render(talk) != _prompt(template, talk):
                raise _inexpressible(
                    template, f"its prompts of {rounds} rounds aren't made of the same parts"
                )


def _prompt(template: Template, messages: Sequence[Message]) -> str:
    return "".join(segment.text for segment in template.render_prompt(messages))


def _split(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found:
        raise ModelError(
            "--to_ollama: the chat format changes the texts of a conversation (it may strip or rewrite them), which a "
            "Modelfile can't; use the model through `ft deploy`"
        )
    return before, after


def _inexpressible(template: Template, why: str) -> ModelError:
    return ModelError(
        f"--to_ollama: the chat format {template.name} can't be written as a Modelfile's template: {why}; use the model "
        "through `ft deploy`"
    )
