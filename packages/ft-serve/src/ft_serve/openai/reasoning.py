"""Telling an answer's reasoning from what it says, as it streams in."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.templates.template import Segment, Template

MARKS = (
    ("<think>", "</think>"),
    ("<mm:think>", "</mm:think>"),
    ("<think:opensource>", "</think:opensource>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
)
"""What opens and closes reasoning in the formats that have it."""


@dataclass(frozen=True, slots=True)
class ReasoningForm:
    """How a chat format marks reasoning.

    Attributes:
        opening: the mark before it.
        closing: the mark behind it.
    """

    opening: str
    closing: str

    @classmethod
    def of(cls, template: Template) -> ReasoningForm | None:
        """Return a chat format's marks; ``None`` if it knows no reasoning."""
        source = template.to_jinja()
        return next((cls(*marks) for marks in MARKS if marks[1] in source), None)

    def opened_by(self, prompt: list[Segment]) -> bool:
        """Whether a prompt ends within reasoning, so that the answer begins there."""
        end = "".join(segment.text for segment in prompt[-4:]).rstrip()
        return end.endswith(self.opening)


class ReasoningReader:
    """Divides an answer into reasoning and the rest; white space around the marks belongs to neither.

    Args:
        form: the marks.
        opened: the prompt holds the opening mark.
    """

    def __init__(self, form: ReasoningForm, *, opened: bool) -> None:
        self._form = form
        self._inside: bool | None = True if opened else None
        self._held = ""
        self._begun = False

    def feed(self, text: str) -> tuple[str, str]:
        """Take more of the answer and return what became certain, reasoning and the rest."""
        if self._inside is False:
            return "", self._rest(text)
        self._held += text
        if self._inside is None:
            return self._at_beginning()
        return self._within()

    def close(self) -> tuple[str, str]:
        """End the answer and return what was held back."""
        held, self._held = self._held, ""
        if self._inside:
            return held.rstrip(), ""
        return "", held

    def _at_beginning(self) -> tuple[str, str]:
        begun = self._held.lstrip()
        if begun.startswith(self._form.opening):
            self._inside = True
            self._held = begun.removeprefix(self._form.opening)
            return self._within()
        if self._form.opening.startswith(begun):
            return "", ""
        self._inside, self._begun = False, True
        held, self._held = self._held, ""
        return "", held

    def _within(self) -> tuple[str, str]:
        if not self._begun:
            self._held = self._held.lstrip()
            self._begun = bool(self._held)
        place = self._held.find(self._form.closing)
        if place >= 0:
            reasoning = self._held[:place].rstrip()
            rest = self._held[place + len(self._form.closing) :]
            self._inside, self._begun, self._held = False, False, ""
            return reasoning, self._rest(rest)
        sure = len(self._held) - _beginning_of(self._form.closing, self._held)
        sure = len(self._held[:sure].rstrip())
        fresh, self._held = self._held[:sure], self._held[sure:]
        return fresh, ""

    def _rest(self, text: str) -> str:
        """Drop the white space between the closing mark and the answer."""
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        return text


def _beginning_of(mark: str, text: str) -> int:
    """Return how many characters at the end of ``text`` may become ``mark``."""
    longest = min(len(mark) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
